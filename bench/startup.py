"""How long a person waits before anything happens: `puna --help` against bare Python, `import puna` against
`import torch`."""

import sys

import table

CASES = {
    "command line": {
        "puna": [sys.executable, "-m", "puna", "--help"],
        "python -c pass": [sys.executable, "-c", "pass"],
    },
    "import for training": {
        "puna": [sys.executable, "-c", "import puna.train.trainer"],
        "torch": [sys.executable, "-c", "import torch"],
        "transformers": [sys.executable, "-c", "from transformers import LlamaForCausalLM"],
    },
}


def main() -> None:
    from importlib.metadata import version

    found = []
    for name, commands in CASES.items():
        medians = table.alternate(
            {peer: (lambda command=command: table.seconds_of(command)) for peer, command in commands.items()},
            7,
        )
        found += table.rows(name, "CPU seconds", medians)
    table.finish(__file__, found, {"transformers": version("transformers")})


if __name__ == "__main__":
    main()
