"""Greedy answers of transformers to conversations; run by test_adapters in a process of its own, offline.

python with_transformers.py FOLDER MESSAGES     prints (ids of the prompt by the template, new ids) of each
"""

import json
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

if __name__ == "__main__":
    folder, given = sys.argv[1:]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    answers = []
    for messages in json.loads(given):
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        with torch.no_grad():
            whole = model.generate(torch.tensor([ids]), max_new_tokens=40, do_sample=False)[0].tolist()
        answers.append((ids, whole[len(ids) :]))
    print(json.dumps(answers))
