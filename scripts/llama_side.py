# SPDX-License-Identifier: Apache-2.0
"""What llama.cpp says of a folder, for scripts/compare_with_transformers: its converter makes a file of it, which
llama-cpp-python loads. Converting and measuring are processes of their own:

    llama_side.py convert SOURCE FOLDER FORMAT OUT.gguf
    llama_side.py logits FILE.gguf GOLDEN.h5 THREADS
    llama_side.py speed FILE.gguf THREADS
"""

import ctypes
import importlib.util
import json
import pathlib
import shutil
import subprocess
import sys
import tarfile
import time

PACKAGE = "llama-cpp-python==0.3.36"
FORMATS = {"float": "f32", "bf16": "bf16"}
SCRIPTS = pathlib.Path(__file__).resolve().parent
FULL, DEFAULT_CACHE = 0, 1  # types of ggml: f32, f16


class Llama:
    """llama.cpp's files of the session's model, in float and bf16; none where its converter refuses the model."""

    def __init__(self, session, package):
        self.session, self.files = session, {}
        source = self.unpack(pathlib.Path(package) if package else self.download())
        folder = self.folder_with_tokenizer()
        for precision, form in FORMATS.items():
            path = session.work / f"{form}.gguf"
            done = subprocess.run([sys.executable, __file__, "convert", source, folder, form, path], capture_output=True,
                                  text=True, env=session.environment)
            if done.returncode == 0 and path.exists():
                self.files[precision] = path
            else:
                print(f"llama.cpp does not take the model as {form}: {(done.stderr.strip() or '?').splitlines()[-1]}")

    def download(self):
        self.session.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-binary", ":all:", "--no-deps", "--dest",
                          self.session.work, PACKAGE])
        return next(self.session.work.glob("llama_cpp_python-*.tar.gz"))

    def unpack(self, package):
        """The converter, which no installed package holds; installs the package where it is not."""
        if not importlib.util.find_spec("llama_cpp"):
            self.session.run([sys.executable, "-m", "pip", "install", "--quiet", package])
        with tarfile.open(package) as archive:
            parts = ("/vendor/llama.cpp/conversion/", "/vendor/llama.cpp/gguf-py/", "/vendor/llama.cpp/convert_hf_to_gguf.py")
            wanted = [entry for entry in archive if any(part in entry.name for part in parts)]
            archive.extractall(self.session.work / "llama", wanted, filter="data")
        return next((self.session.work / "llama").glob("*/vendor/llama.cpp"))

    def folder_with_tokenizer(self):
        """llama.cpp wants a tokenizer; its tokens do not matter here."""
        model = self.session.model
        if (model / "tokenizer.json").exists():
            return model
        folder = self.session.work / "with_tokenizer"
        folder.mkdir()
        for path in model.iterdir():
            (folder / path.name).symlink_to(path.resolve())
        learnt = self.session.work / "tokenizer"
        self.session.run([sys.executable, SCRIPTS / "make_tokenizer", 512, learnt, SCRIPTS.parent / "README.md"])
        for path in learnt.iterdir():
            shutil.copy(path, folder)
        (folder / "tokenizer_config.json").write_text(
            json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}), encoding="utf-8")
        return folder

    def measure(self, *words):
        text = self.session.run([sys.executable, __file__, *words, self.session.options.threads])
        return json.loads(text.rsplit("RESULT ", 1)[1])

    def show_logits(self, golden):
        for precision, path in self.files.items():
            found = self.measure("logits", path, golden)
            print(f"llama.cpp {precision} against transformers in double: max difference {found['max_difference']:.3g}, "
                  f"max KL {found['max_kl']:.3g} nats")
        print()

    def speed(self, precision):
        return self.measure("speed", self.files[precision]) if precision in self.files else {}


def convert(source, folder, form, out):
    sys.path[:0] = [source, str(pathlib.Path(source) / "gguf-py")]
    import conversion.base
    import convert_hf_to_gguf
    # It knows tokenizers by a hash of what they do, and not this one: it splits as Qwen2's does.
    conversion.base.TextModel.get_vocab_base_pre = lambda self, tokenizer: "qwen2"
    sys.argv = ["convert_hf_to_gguf", folder, "--outtype", form, "--no-nextn", "--outfile", out]
    convert_hf_to_gguf.main()


class Context:
    def __init__(self, path, threads, tokens=1024, **more):
        import llama_cpp
        self.library = llama_cpp
        cache = FULL if pathlib.Path(path).stem == "f32" else DEFAULT_CACHE
        self.model = llama_cpp.Llama(model_path=path, n_threads=threads, n_threads_batch=threads, n_ctx=tokens,
                                     n_batch=tokens, type_k=cache, type_v=cache, verbose=False, **more)
        self.vocabulary = self.model.n_vocab()

    def clear(self):
        context = self.model._ctx.ctx
        self.library.llama_memory_clear(self.library.llama_get_memory(context), True)

    def read(self, tokens):
        """Reads tokens, and waits for the logits of the last."""
        numbers = (ctypes.c_int32 * len(tokens))(*tokens)
        context = self.model._ctx.ctx
        if self.library.llama_decode(context, self.library.llama_batch_get_one(numbers, len(tokens))) != 0:
            sys.exit("llama_decode failed")
        return self.library.llama_get_logits(context)[self.vocabulary - 1]


def logits(path, golden, threads):
    import h5py
    import torch
    from transformers_side import difference
    context, found = Context(path, int(threads), logits_all=True).model, []
    with h5py.File(golden) as file:
        for run in file["runs"].values():
            tokens, truth = run["tokens"][:].tolist(), torch.from_numpy(run["logits"][:])
            context.reset()
            context.eval(tokens)
            found.append(difference(truth, torch.from_numpy(context.scores[:len(tokens), :truth.shape[1]].copy())))
    print("RESULT " + json.dumps({key: max(run[key] for run in found) for key in ("max_difference", "max_kl")}))


def speed(path, threads):
    context = Context(path, int(threads))
    prompt = [7919 * i % context.vocabulary for i in range(512)]

    def seconds(tokens):
        begin = time.perf_counter()
        context.read(tokens)
        return time.perf_counter() - begin

    prefill = []
    for _ in range(4):
        context.clear()
        prefill.append(seconds(prompt))
    context.clear()
    context.read(prompt[:64])
    decoding = min(seconds([prompt[64 + i]]) for i in range(100))
    print("RESULT " + json.dumps({"prefill": 512 / min(prefill), "decoding": 1.0 / decoding}))


if __name__ == "__main__":
    {"convert": convert, "logits": logits, "speed": speed}[sys.argv[1]](*sys.argv[2:])
