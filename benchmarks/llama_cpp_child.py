"""llama.cpp's half of benchmarks/turns.py: runs under an interpreter with llama-cpp-python 0.3.36.

    python llama_cpp_child.py MODEL.gguf TOKENS THREADS

Prints one JSON line when ready and one for every line it reads. Through the low-level API: the
high-level class does not show sequence edits.
"""

import ctypes
import json
import random
import sys
import time

import llama_cpp as lib

PATH, LENGTH, THREADS = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
NEW_TOKENS = 16
BATCH = 2048


@lib.llama_log_callback
def _silent(level, text, data):
    pass


def load():
    """A context for one sequence of 8 k tokens, and its memory."""
    lib.llama_log_set(_silent, ctypes.c_void_p(0))
    lib.llama_backend_init()
    model_options = lib.llama_model_default_params()
    model_options.n_gpu_layers = 0
    model_options.use_extra_bufts = False  # the AMX buffer type crashes in this release
    model = lib.llama_model_load_from_file(PATH.encode(), model_options)
    options = lib.llama_context_default_params()
    options.n_ctx, options.n_batch, options.n_ubatch = 8192, BATCH, 512
    options.n_threads = options.n_threads_batch = THREADS
    context = lib.llama_init_from_model(model, options)
    return context, lib.llama_get_memory(context)


def feed(context, batch, tokens, position):
    """Decode tokens at position.., logits for the last one only."""
    for start in range(0, len(tokens), BATCH):
        part = tokens[start : start + BATCH]
        batch.n_tokens = len(part)
        for i, token in enumerate(part):
            batch.token[i], batch.pos[i] = token, position + start + i
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
            batch.logits[i] = int(start + i == len(tokens) - 1)
        if lib.llama_decode(context, batch):
            raise SystemExit("llama_decode failed")
    lib.llama_synchronize(context)


def main():
    """Answer rounds until the input ends."""
    context, memory = load()
    batch = lib.llama_batch_init(BATCH, 0, 1)
    rng = random.Random(0)
    tokens = [rng.randrange(100, 40_000) for _ in range(LENGTH)]
    start = LENGTH // 8
    end = start + LENGTH // 4
    print(json.dumps({"ready": 1}), flush=True)
    for _ in sys.stdin:
        new = [rng.randrange(100, 40_000) for _ in range(NEW_TOKENS)]
        lib.llama_memory_clear(memory, True)
        feed(context, batch, tokens, 0)
        began = time.perf_counter()
        feed(context, batch, new, LENGTH)
        append = time.perf_counter() - began
        lib.llama_memory_seq_rm(memory, 0, LENGTH, -1)
        began = time.perf_counter()
        lib.llama_memory_seq_rm(memory, 0, start, end)
        lib.llama_memory_seq_add(memory, 0, end, LENGTH, start - end)
        feed(context, batch, new, LENGTH - (end - start))  # the shift happens in here
        splice = time.perf_counter() - began
        began = time.perf_counter()
        lib.llama_memory_seq_rm(memory, 0, start, -1)
        feed(context, batch, tokens[end:] + new, start)
        forget = time.perf_counter() - began
        figures = {"append_ms": append, "splice_ms": splice, "forget_ms": forget}
        print(json.dumps({k: v * 1e3 for k, v in figures.items()}), flush=True)


if __name__ == "__main__":
    main()
