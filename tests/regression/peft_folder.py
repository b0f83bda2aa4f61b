# SPDX-License-Identifier: Apache-2.0
"""Adapters in the form of PEFT for the model that chat_folder.sh makes, without PEFT.

    peft_folder.py FOLDER [half | foreign | wide]    writes one, with something wrong in it or not
    peft_folder.py FOLDER OTHER                      do two say the same, number by number?
    peft_folder.py MODEL FOLDER ADDED                the model with W + scale B A for each W, in double
"""

import json
import pathlib
import random
import shutil
import struct
import sys

RANK, WIDTH = 3, 32
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
}
MODULES = [LAYERS + "0.linear_attn.in_proj_qkvz", LAYERS + "1.linear_attn.in_proj_ba",
           LAYERS + "2.linear_attn.out_proj", "self_attn.q_proj", "self_attn.o_proj"]
PARAMETERS = [LAYERS + "0.mlp.shared_expert.gate_proj.weight", LAYERS + "3.mlp.shared_expert.down_proj.weight"]
CONFIG = {
    "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "folder", "bias": "none",
    "fan_in_fan_out": False, "init_lora_weights": True, "inference_mode": True, "layers_pattern": None,
    "lora_alpha": 7.5, "lora_dropout": 0.0, "modules_to_save": None, "r": RANK, "rank_pattern": {},
    "alpha_pattern": {".*\\.gate_up_proj": 15}, "target_modules": MODULES, "target_parameters": PARAMETERS, "use_dora": False, "use_rslora": False,
}


def write_tensors(path, tensors):
    """tensors: name -> (dtype, shape, bytes)."""
    header, body = {}, b""
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)


def read_tensors(path):
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + length])
    header.pop("__metadata__", None)
    return {name: (entry["dtype"], entry["shape"], data[8 + length:][slice(*entry["data_offsets"])])
            for name, entry in header.items()}


def write(folder, wrong):
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(CONFIG, indent=2) + "\n", encoding="utf-8")
    generator = random.Random(1)
    tensors = {}
    for projection, (out, width) in PROJECTIONS.items():
        tensors[f"{PREFIX}{projection}.lora_A.weight"] = [RANK, width]
        tensors[f"{PREFIX}{projection}.lora_B.weight"] = [out, RANK]
    q_proj = PREFIX + LAYERS + "3.self_attn.q_proj"
    if wrong == "half":
        del tensors[q_proj + ".lora_B.weight"]
    elif wrong == "foreign":
        tensors[PREFIX + "x"] = [1, 1]
    elif wrong == "wide":
        tensors[q_proj + ".lora_A.weight"] = [RANK, WIDTH - 1]
    for name, shape in tensors.items():
        numbers = [generator.uniform(-0.3, 0.3) for _ in range(shape[0] * shape[1])]
        tensors[name] = ("F32", shape, struct.pack(f"<{len(numbers)}f", *numbers))
    write_tensors(folder / "adapter_model.safetensors", tensors)


def add(model, adapter, added):
    """Row i of W + scale B A is row i of W + scale sum_r B_ir row r of A."""
    def rows(tensors, name):
        dtype, (count, width), data = tensors[name]
        assert dtype == "F32", f"{name} is {dtype}"
        numbers = struct.unpack(f"<{count * width}f", data)
        return [numbers[i * width:(i + 1) * width] for i in range(count)]

    shutil.copytree(model, added)
    weights, factors = (read_tensors(path) for path in (model / "model.safetensors", adapter / "adapter_model.safetensors"))
    for projection in PROJECTIONS:
        a = rows(factors, f"{PREFIX}{projection}.lora_A.weight")
        b = rows(factors, f"{PREFIX}{projection}.lora_B.weight")
        name = f"{projection}.weight"
        numbers = [w + CONFIG["lora_alpha"] / RANK * sum(b_ir * a[r][j] for r, b_ir in enumerate(b[i]))
                   for i, row in enumerate(rows(weights, name)) for j, w in enumerate(row)]
        weights[name] = ("F64", weights[name][1], struct.pack(f"<{len(numbers)}d", *numbers))
    write_tensors(added / "model.safetensors", weights)


def read(folder):
    tensors = read_tensors(folder / "adapter_model.safetensors")
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    return tensors, {key: config[key] for key in ("peft_type", "r", "lora_alpha", "use_rslora", "bias", "task_type",
                                                  "base_model_name_or_path")}, [sorted(config[key]) for key in ("target_modules", "target_parameters")]


if __name__ == "__main__":
    paths = [pathlib.Path(argument) for argument in sys.argv[1:]]
    if len(paths) == 3:
        sys.exit(add(*paths))
    if len(paths) == 2 and paths[1].is_dir():
        sys.exit(read(paths[0]) != read(paths[1]))
    write(paths[0], sys.argv[2] if len(paths) == 2 else "")
