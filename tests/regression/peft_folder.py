# SPDX-License-Identifier: Apache-2.0
"""Adapters in the form of PEFT for the model that chat_folder.sh makes, without PEFT.

    peft_folder.py FOLDER [half | foreign | wide | head | narrow_head]    writes one, with something wrong in it or not
    peft_folder.py FOLDER ranks                      writes one whose projections are not of one rank
    peft_folder.py FOLDER OTHER                      do two say the same, number by number?
    peft_folder.py FOLDER BASE MERGED                is the model MERGED, in double, BASE with the adapter added?
"""

import json
import pathlib
import random
import struct
import sys

RANK, ALPHA, WIDTH, EXPERTS, EXPERT_WIDTH = 3, 7.5, 32, 8, 32
PREFIX = "base_model.model."
LAYERS = "model.layers."
# (out, in) of some projections of all kinds, in other layers.
PROJECTIONS = {
    LAYERS + "0.linear_attn.in_proj_qkvz": (192, WIDTH),
    LAYERS + "1.linear_attn.in_proj_ba": (8, WIDTH),
    LAYERS + "2.linear_attn.out_proj": (WIDTH, 64),
    LAYERS + "0.mlp.shared_expert.gate_proj": (32, WIDTH),
    LAYERS + "3.mlp.shared_expert.down_proj": (WIDTH, 32),
    LAYERS + "3.self_attn.q_proj": (128, WIDTH),
    LAYERS + "3.self_attn.o_proj": (WIDTH, 64),
    LAYERS + "2.mlp.gate": (EXPERTS, WIDTH),
    LAYERS + "0.mlp.shared_expert_gate": (1, WIDTH),
    "lm_head": (400, WIDTH),
    "mtp.fc": (WIDTH, 2 * WIDTH),
    "mtp.layers.0.self_attn.o_proj": (WIDTH, 64),
}
# The experts of a layer: of gate_up_proj and down_proj, and of one of them alone.
STACKED = {
    LAYERS + "1.mlp.experts.base_layer": (2 * EXPERT_WIDTH, WIDTH),
    LAYERS + "1.mlp.experts": (WIDTH, EXPERT_WIDTH),
    LAYERS + "2.mlp.experts": (2 * EXPERT_WIDTH, WIDTH),
    "mtp.layers.0.mlp.experts": (WIDTH, EXPERT_WIDTH),
}
# Those of another rank, whose scale is the same.
RANKS = {LAYERS + "3.self_attn.o_proj": 1, LAYERS + "2.mlp.experts": 2 * RANK}
RANK_PATTERN = {"3.self_attn.o_proj": 1, "layers.2.mlp.experts.gate_up_proj": 2 * RANK}
# Those of mtp.* are named nowhere: PEFT has no such module.
MODULES = [LAYERS + "0.linear_attn.in_proj_qkvz", LAYERS + "1.linear_attn.in_proj_ba",
           LAYERS + "2.linear_attn.out_proj", "self_attn.q_proj", "self_attn.o_proj", "lm_head"]
PARAMETERS = [LAYERS + "2.mlp.gate.weight", LAYERS + "0.mlp.shared_expert_gate.weight",
              LAYERS + "0.mlp.shared_expert.gate_proj.weight", LAYERS + "3.mlp.shared_expert.down_proj.weight",
              LAYERS + "1.mlp.experts.gate_up_proj", LAYERS + "1.mlp.experts.down_proj",
              LAYERS + "2.mlp.experts.gate_up_proj"]
CONFIG = {
    "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "folder", "bias": "none",
    "fan_in_fan_out": False, "init_lora_weights": True, "inference_mode": True, "layers_pattern": None,
    "lora_alpha": ALPHA, "lora_dropout": 0.0, "modules_to_save": None, "r": RANK, "rank_pattern": {},
    "alpha_pattern": {".*\\.x_proj": 15}, "target_modules": MODULES, "target_parameters": PARAMETERS, "use_dora": False, "use_rslora": False,
}


def write(folder, wrong):
    folder.mkdir()
    ranks, config = {}, CONFIG
    if wrong == "ranks":
        ranks = RANKS
        alphas = {name: ALPHA / RANK * rank for name, rank in RANK_PATTERN.items()}
        config = CONFIG | {"rank_pattern": RANK_PATTERN, "alpha_pattern": alphas}
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    generator = random.Random(1)
    tensors = {}
    for projection, (out, width) in PROJECTIONS.items():
        rank = ranks.get(projection, RANK)
        tensors[f"{PREFIX}{projection}.lora_A.weight"] = [rank, width]
        tensors[f"{PREFIX}{projection}.lora_B.weight"] = [out, rank]
    for projection, (out, width) in STACKED.items():
        rank = ranks.get(projection, RANK)
        tensors[f"{PREFIX}{projection}.lora_A.weight"] = [EXPERTS * rank, width]
        tensors[f"{PREFIX}{projection}.lora_B.weight"] = [out, rank * EXPERTS]
    q_proj = PREFIX + LAYERS + "3.self_attn.q_proj"
    if wrong == "half":
        del tensors[q_proj + ".lora_B.weight"]
    elif wrong == "foreign":
        tensors[PREFIX + "x"] = [1, 1]
    elif wrong == "wide":
        tensors[q_proj + ".lora_A.weight"] = [RANK, WIDTH - 1]
    head = PREFIX + "lm_head.base_layer.weight"  # PEFT keeps the head's weight beside its adapter
    if wrong == "narrow_head":
        tensors[head] = [400, WIDTH - 1]
    header, body = {}, b""
    for name, shape in tensors.items():
        numbers = [generator.uniform(-0.3, 0.3) for _ in range(shape[0] * shape[1])]
        begin = len(body)
        body += struct.pack(f"<{len(numbers)}f", *numbers)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, len(body)]}
    if wrong == "head":
        begin = len(body)
        body += tensors_of(pathlib.Path("folder/model.safetensors"))["lm_head.weight"][2]
        header[head] = {"dtype": "F32", "shape": [400, WIDTH], "data_offsets": [begin, len(body)]}
    text = json.dumps(header).encode()
    (folder / "adapter_model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + body)


def tensors_of(path):
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + length])
    header.pop("__metadata__", None)
    return {name: (entry["dtype"], entry["shape"], data[8 + length:][slice(*entry["data_offsets"])])
            for name, entry in header.items()}


def read(folder):
    tensors = tensors_of(folder / "adapter_model.safetensors")
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    return tensors, {key: config[key] for key in ("peft_type", "r", "lora_alpha", "use_rslora", "bias", "task_type",
                                                  "base_model_name_or_path")}, [sorted(config[key]) for key in ("target_modules", "target_parameters")]


def matrix(tensor):
    dtype, (rows, columns), data = tensor
    numbers = struct.unpack(f"<{rows * columns}{'d' if dtype == 'F64' else 'f'}", data)
    return [numbers[row * columns:(row + 1) * columns] for row in range(rows)]


def pairs(factors):
    """(weight, A, B) of each projection, and of each expert: of B it has every EXPERTS-th column."""
    def of(name):
        return [matrix(factors[f"{PREFIX}{name}.lora_{half}.weight"]) for half in "AB"]
    for projection in PROJECTIONS:
        yield (projection + ".weight", *of(projection))
    for projection, (out, _) in STACKED.items():
        a, b = of(projection)
        experts = projection.removesuffix(".base_layer")
        rank = len(a) // EXPERTS
        for expert in range(EXPERTS):
            own_a = a[expert * rank:(expert + 1) * rank]
            own_b = [row[expert::EXPERTS] for row in b]
            if out == WIDTH:
                yield f"{experts}.{expert}.down_proj.weight", own_a, own_b
            else:
                yield f"{experts}.{expert}.gate_proj.weight", own_a, own_b[:EXPERT_WIDTH]
                yield f"{experts}.{expert}.up_proj.weight", own_a, own_b[EXPERT_WIDTH:]


def check_merged(factors, base, merged):
    """Sums of at most 2 RANK products below 0.1 and the weight in double, each in another order."""
    changed = {}
    for name, a, b in pairs(factors):
        changed[name] = [[w + ALPHA / RANK * sum(b[o][r] * a[r][i] for r in range(len(a))) for i, w in enumerate(row)]
                         for o, row in enumerate(matrix(base[name]))]
    for name, tensor in merged.items():
        if len(tensor[1]) != 2:
            continue
        for row, expected in zip(matrix(tensor), changed.get(name, matrix(base[name]))):
            for x, y in zip(row, expected):
                if not abs(x - y) <= (8 * 2.0 ** -53 * (1 + abs(y)) if name in changed else 0):
                    sys.exit(f"{name}: {x} and {y}")


if __name__ == "__main__":
    paths = [pathlib.Path(argument) for argument in sys.argv[1:]]
    if len(paths) == 3:
        check_merged(*(tensors_of(path) for path in (paths[0] / "adapter_model.safetensors",
                                                     paths[1] / "model.safetensors", paths[2] / "model.safetensors")))
        sys.exit()
    if len(paths) == 2 and paths[1].is_dir():
        sys.exit(read(paths[0]) != read(paths[1]))
    write(paths[0], sys.argv[2] if len(paths) == 2 else "")
