"""What transformers and PEFT make of adapters; run by test_peft in a process of its own, offline.

python with_peft.py JOBS     a JSON list of (what, base, given, rows of tokens, out)

base: a Hugging Face folder. load: given is an adapter's folder, to whose tokens the vocabulary is grown.
make: it holds keys of LoraConfig; the factors are random. Under out: the adapter as PEFT saves it, and
logits.pt for the rows.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaForCausalLM


def job(what: str, base: str, given: Any, rows: list[list[int]], out: str) -> None:
    model = LlamaForCausalLM.from_pretrained(base)
    if what == "load":
        ids = json.loads((Path(given) / "adapter_config.json").read_text())["trainable_token_indices"]
        largest = max(ids if isinstance(ids, list) else [0, *(ids or {}).get("embed_tokens", [])])
        if largest >= model.config.vocab_size:
            model.resize_token_embeddings(largest + 1, mean_resizing=False)
        adapted: Any = PeftModel.from_pretrained(model, given)
    else:
        torch.manual_seed(5)
        adapted = get_peft_model(model, LoraConfig(**given))
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                torch.nn.init.normal_(parameter, std=0.1)
    adapted.eval()
    adapted.save_pretrained(out)
    with torch.no_grad():
        torch.save(adapted(torch.tensor(rows)).logits, Path(out) / "logits.pt")


if __name__ == "__main__":
    for each in json.loads(sys.argv[1]):
        job(*each)
