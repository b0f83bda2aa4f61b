# SPDX-License-Identifier: Apache-2.0
"""What transformers computes for scripts/compare_with_transformers. Each stage is a process of its own, so that no idle
thread of torch takes a core from what is measured next:

    transformers_side.py make FOLDER                             a model with random weights
    transformers_side.py loads FOLDER [REFERENCE]                does all of it load? the same logits as another folder?
    transformers_side.py golden FOLDER OUT.h5 THREADS            logits, losses and all gradients, in double and float
    transformers_side.py logits FOLDER OUT.h5 THREADS            logits in float
    transformers_side.py train FOLDER TOKENS.npy OUT.json THREADS
    transformers_side.py speed FOLDER DTYPE SEQUENCE BATCH THREADS

Its double precision is the source of transformers with each cast to float made one to double: model.double() alone leaves
norms, softmax, router, gates and the delta rule in float.
"""

import importlib.util
import inspect
import json
import math
import pathlib
import re
import sys
import tempfile
import time

import h5py
import numpy
import torch
import transformers

transformers.logging.set_verbosity_error()

# That of inputs/peer_76m.yaml: 76,461,664 parameters.
SHAPE = {"vocab_size": 8192, "hidden_size": 512, "num_hidden_layers": 8, "num_attention_heads": 8,
         "num_key_value_heads": 2, "head_dim": 64, "linear_num_key_heads": 4, "linear_num_value_heads": 8,
         "linear_key_head_dim": 128, "linear_value_head_dim": 128, "linear_conv_kernel_dim": 4, "num_experts": 16,
         "num_experts_per_tok": 2, "moe_intermediate_size": 256, "shared_expert_intermediate_size": 256,
         "norm_topk_prob": True, "tie_word_embeddings": False, "max_position_embeddings": 4096}
LENGTHS = {"a": 96, "b": 61}  # tokens of the runs that are compared; no multiple of a chunk
GAP = 1e-5  # least distance of the last chosen probability from the next: ten times what float moves one
BALANCE = 0.001
ADAMW = {"lr": 1e-3, "betas": (0.9, 0.95), "eps": 1e-8}
DECAY = 0.1
MEMBERS = 4  # float runs whose first weights differ by one rounding


def make(folder):
    torch.manual_seed(0)
    model = transformers.Qwen3NextForCausalLM(transformers.Qwen3NextConfig(**SHAPE))
    with torch.no_grad():  # a fresh model has all norms and biases alike: spread out, a mix-up shows
        for name, weight in model.named_parameters():
            if weight.ndim == 1:
                weight.add_(torch.randn_like(weight) * 0.2)
            else:
                weight.mul_(5.0 if ".mlp.gate." in name else 50.0 if "embed" in name else 2.0)
    model.save_pretrained(folder)


def widened(config):
    """The class of transformers, all of it in double."""
    module = sys.modules[type(transformers.AutoModelForCausalLM.from_config(config)).__module__]
    text = inspect.getsource(module)
    text = re.sub(r"torch\.float(32)?\b", "torch.float64", text).replace(".float()", ".double()")
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / pathlib.Path(module.__file__).name
        path.write_text(text, encoding="utf-8")
        spec = importlib.util.spec_from_file_location(module.__name__ + "_double", path)
        double = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = double
        spec.loader.exec_module(double)
    config._attn_implementation = "eager"
    config._experts_implementation = "eager"
    return getattr(double, config.architectures[0])(config).double()


def load(folder, dtype=torch.float32):
    model, report = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, output_loading_info=True)
    # transformers has no module for multi-token prediction and leaves its tensors out.
    unexpected = [key for key in report["unexpected_keys"] if not key.startswith("mtp.")]
    if report["missing_keys"] or unexpected or report["mismatched_keys"]:
        sys.exit(f"{folder}: missing {report['missing_keys']}, unexpected {unexpected}, "
                 f"mismatched {report['mismatched_keys']}")
    return model.eval()


def load_double(folder):
    model = load(folder)
    double = widened(transformers.AutoConfig.from_pretrained(folder))
    double.load_state_dict(model.state_dict())
    return double.eval()


def loads(folder, reference=None):
    def shown(path):
        model = load(path)
        tokens = (torch.arange(96) * 7919 % model.config.vocab_size).reshape(2, 48)
        with torch.no_grad():
            found = model(tokens).logits
        print(f"{path}: loaded, {sum(p.numel() for p in model.parameters())} parameters, "
              f"largest logit {found.abs().max():.4g}")
        return found

    first = shown(folder)
    if reference:
        second = shown(reference)
        difference = (first - second).abs().max().item() if first.shape == second.shape else math.inf
        print(f"largest difference of a logit: {difference}")
        return difference != 0.0
    return False


def losses(model, tokens):
    """Logits, cross-entropy and balance loss (without coefficient) of rows (B, T)."""
    out = model(tokens, output_router_logits=True, use_cache=False)
    logits, labels = out.logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()
    return out, torch.nn.functional.cross_entropy(logits, labels), out.aux_loss


def smallest_gap(model, out):
    K = model.config.num_experts_per_tok
    gap = math.inf
    for router in out.router_logits:
        top = torch.softmax(router.double(), dim=-1).topk(min(K + 1, router.shape[-1]), dim=-1).values
        gap = min(gap, (top[:, K - 1] - top[:, -1]).min().item() if top.shape[1] > K else math.inf)
    return gap


def difference(golden, logits):
    """Largest difference, largest and mean divergence in nats, share of equal most probable tokens."""
    p, q = torch.log_softmax(golden.double(), -1), torch.log_softmax(logits.double(), -1)
    divergence = (p.exp() * (p - q)).sum(-1)
    return {"max_difference": (golden.double() - logits.double()).abs().max().item(),
            "max_kl": divergence.max().item(), "mean_kl": divergence.mean().item(),
            "top1_agreement": (p.argmax(-1) == q.argmax(-1)).double().mean().item()}


def gradients(model, loss):
    names, weights = zip(*model.named_parameters())
    found = torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True)
    return {n: torch.zeros_like(w) if g is None else g for n, w, g in zip(names, weights, found)}


def write_gradients(group, double, single):
    group.attrs["storage"] = "float64"
    for name, gradient in double.items():
        data = group.create_dataset(name, data=gradient.numpy())
        data.attrs["max_abs"] = gradient.abs().max().item()
        data.attrs["float32_max_abs_error"] = (single[name].double() - gradient).abs().max().item()


def golden(folder, path):
    single, double = load(folder), load_double(folder)
    half = load(folder, torch.bfloat16)
    half.set_experts_implementation("eager")  # the products of groups want widths that are multiples of eight
    summary = {"float": [], "bf16": []}
    with h5py.File(path, "w") as file:
        for seed, (name, length) in enumerate(LENGTHS.items()):
            chance = torch.Generator().manual_seed(seed)
            for _ in range(100):  # until rounding changes no choice of an expert
                tokens = torch.randint(0, double.config.vocab_size, (1, length), generator=chance)
                with torch.no_grad():
                    gap = smallest_gap(double, losses(double, tokens)[0])
                if gap >= GAP:
                    break
            out, ce, aux = losses(double, tokens)
            out32, ce32, aux32 = losses(single, tokens)
            run = file.create_group(f"runs/{name}")
            run["tokens"] = tokens[0].numpy().astype(numpy.int32)
            run["logits"] = out.logits[0].detach().numpy()
            run["logits_float32"] = out32.logits[0].detach().numpy()
            for key, value, rounded in (("loss_ce", ce, ce32), ("loss_aux", aux, aux32)):
                data = run.create_dataset(key, data=value.item())
                data.attrs["float32_error"] = abs(rounded.item() - value.item())
            with torch.no_grad():
                bf16 = half(tokens, use_cache=False).logits[0]
            summary["float"].append(difference(out.logits[0].detach(), out32.logits[0].detach()))
            summary["bf16"].append(difference(out.logits[0].detach(), bf16))
            if name == "a":
                for key, loss, rounded in (("grad_ce", ce, ce32), ("grad_aux", aux, aux32)):
                    write_gradients(run.create_group(key), gradients(double, loss), gradients(single, rounded))
            print(f"run {name}: {length} tokens, smallest gap between experts {gap:.1e}")
    total = {kind: {key: sum(r[key] for r in runs) / len(runs) if key in ("mean_kl", "top1_agreement")
                    else max(r[key] for r in runs) for key in runs[0]} for kind, runs in summary.items()}
    pathlib.Path(path).with_suffix(".json").write_text(json.dumps(total), encoding="utf-8")


def logits(folder, path):
    model = load(folder)
    with h5py.File(path, "w") as file, torch.no_grad():
        for seed, (name, length) in enumerate(LENGTHS.items()):
            tokens = torch.randint(0, model.config.vocab_size, (1, length), generator=torch.Generator().manual_seed(seed))
            file[f"prompts/{name}/tokens"] = tokens[0].numpy().astype(numpy.int32)
            file[f"prompts/{name}/logits"] = model(tokens, use_cache=False).logits[0].numpy()


def rate(step, steps):
    """Cosine to a tenth, as schedule: cosine of a deck."""
    return ADAMW["lr"] * (0.1 + 0.9 * 0.5 * (1.0 + math.cos(math.pi * step / steps)))


def train_once(model, tokens, member=0):
    if member:
        chance = torch.Generator().manual_seed(member)
        with torch.no_grad():
            for weight in model.parameters():
                sign = torch.randint(0, 2, weight.shape, generator=chance) * 2.0 - 1.0
                weight.copy_(torch.nextafter(weight, sign * math.inf))
    groups = [{"params": [p for p in model.parameters() if (p.ndim > 1) == decays],
               "weight_decay": DECAY if decays else 0.0} for decays in (True, False)]
    optimizer = torch.optim.AdamW(groups, **ADAMW)
    rows = []
    for step, batch in enumerate(tokens):
        for group in optimizer.param_groups:
            group["lr"] = rate(step + 1, len(tokens))
        _, ce, aux = losses(model, batch)
        optimizer.zero_grad()
        (ce + BALANCE * aux).backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rows.append({"loss": ce.item(), "loss_balance": aux.item(), "gradient_norm": norm.item(),
                     "learning_rate": rate(step + 1, len(tokens))})
    return rows


def train(folder, tokens, path):
    tokens = torch.from_numpy(numpy.load(tokens).astype(numpy.int64))  # (steps, B, T)
    result = {"double": train_once(load_double(folder).train(), tokens),
              "float": [train_once(load(folder).train(), tokens, member) for member in range(MEMBERS)]}
    pathlib.Path(path).write_text(json.dumps(result), encoding="utf-8")


def fastest(repeats, work):
    best = math.inf
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - begin)
    return best


def speed(folder, dtype, sequence, batch):
    model = load(folder, getattr(torch, dtype))
    tokens = torch.randint(0, model.config.vocab_size, (batch, sequence))
    optimizer = torch.optim.AdamW(model.parameters(), fused=True, **ADAMW)

    def step():
        model(tokens, labels=tokens, use_cache=False).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    found = {"training": batch * sequence / fastest(3, step)}
    with torch.no_grad():
        prompt = torch.randint(0, model.config.vocab_size, (1, 512))
        found["prefill"] = 512 / fastest(3, lambda: model(prompt, use_cache=True, logits_to_keep=1))
        past = model(prompt[:, :64], use_cache=True).past_key_values
        found["decoding"] = 1.0 / fastest(40, lambda: model(prompt[:, :1], past_key_values=past, use_cache=True))
    print("RESULT " + json.dumps(found))


def main():
    stage, *rest = sys.argv[1:]
    if stage in ("golden", "logits", "train", "speed"):
        torch.set_num_threads(int(rest.pop()))
    if stage == "speed":
        rest[2:] = [int(value) for value in rest[2:]]
    stages = {"make": make, "loads": loads, "golden": golden, "logits": logits, "train": train, "speed": speed}
    return stages[stage](*rest)


if __name__ == "__main__":
    sys.exit(main())
