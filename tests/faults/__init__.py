"""Faults that a training survives, against a run that nothing disturbed: `pytest tests/faults` runs them all.

Most go through the real interface, `torchrun ... -m puna run`, with two processes of gloo. Those that other
files of tests hold stand in the table by the place where they are found; `pytest tests/faults` runs these,
too.
"""

# Number or word -> the fault, and tests of other files. Those without one stand in `test_faults`.
TABLE: dict[int | str, tuple[str, list[str]]] = {
    1: ("kill -9 of a process in a step", []),
    2: ("kill -9 of the first process", []),
    3: (
        "kill while a checkpoint is staged",
        [
            "tests/train/test_checkpoint.py::"
            "test_a_kill_at_any_moment_of_a_save_leaves_the_checkpoint_before_or_this_one"
        ],
    ),
    4: ("kill between files and index of a checkpoint", []),
    5: ("kill in the rename of a checkpoint", []),
    6: ("SIGTERM", ["tests/run/test_processes.py::test_a_stop_of_torchrun_is_saved_by_all"]),
    7: ("SIGTERM twice", ["tests/run/test_watch.py"]),
    8: (
        "a process that is stopped",
        [
            "tests/run/test_watch.py",
            "tests/run/test_processes.py::test_a_process_that_is_silent_ends_the_run_and_it_goes_on",
        ],
    ),
    9: ("a file of a checkpoint cut short", []),
    10: (
        "a flipped bit in a file of a checkpoint",
        [
            "tests/train/test_checkpoint.py::test_a_thousand_flipped_bits_are_all_found",
            "tests/train/test_checkpoint.py::test_bits_that_flip_between_digest_and_write_are_all_found",
        ],
    ),
    11: ("a flipped bit in the index of a checkpoint", []),
    12: ("a file of a checkpoint gone", []),
    13: (
        "a full disk in a save",
        ["tests/train/test_checkpoint.py::test_a_disk_that_is_full_for_one_process_is_told_by_all"],
    ),
    14: ("a folder that cannot be written, a disk that fails", []),
    15: ("another number of processes at each resume", []),
    16: (
        "tensor parallelism and FSDP2 after each other",
        ["tests/train/test_checkpoint.py::test_processes_load_what_others_wrote"],
    ),
    17: (
        "a damaged token shard",
        ["tests/tokens/test_shards.py::test_a_damaged_shard_is_told_with_file_and_place"],
    ),
    18: ("a token shard missing or changed", []),
    19: (
        "a gradient that is not finite",
        [
            "tests/train/test_trainer.py::"
            "test_a_step_that_is_not_finite_leaves_weights_moments_and_count_as_they_were",
            "tests/train/test_trainer.py::"
            "test_a_run_with_skipped_steps_reads_the_same_batches_and_resumes_bit_for_bit",
            "tests/train/test_parallel.py::test_all_processes_skip_a_step_whose_gradient_is_not_finite_in_one",
        ],
    ),
    20: ("a spike of the loss", ["tests/train/test_health.py"]),
    21: (
        "a flipped bit in the memory of a replica",
        [
            "tests/train/test_health.py::"
            "test_a_bit_that_flips_in_one_process_is_found_before_the_next_checkpoint"
        ],
    ),
    22: ("a clock that jumps a day", []),
    "worker": (
        "a killed worker of the corpus",
        [
            "tests/corpus/test_engine.py::test_a_worker_that_is_killed_is_told",
            "tests/corpus/test_engine.py::test_workers_end_with_a_killed_process",
        ],
    ),
    "lock": ("two runs in one folder", []),
    "fingerprint": ("another recipe or version of the code at a resume", []),
}  # fmt: skip


def elsewhere() -> list[str]:
    """The tests of other files, each once."""
    return list(dict.fromkeys(test for _, tests in TABLE.values() for test in tests))
