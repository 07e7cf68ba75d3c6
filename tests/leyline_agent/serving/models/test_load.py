"""Loading models: what works, and a clear error for everything that does not."""

import json
import shutil

import numpy as np
import pytest
import torch

from leyline_agent.errors import UnsupportedModel
from leyline_agent.serving.models.load import load_model, load_tokenizer, pick_device, pick_dtype

gguf = pytest.importorskip("gguf")


@pytest.fixture(autouse=True)
def _own_data_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LEYLINE_HOME", str(tmp_path / "leyline"))


@pytest.fixture(scope="module")
def gguf_file(tiny_folder, tmp_path_factory):
    """The tiny model as a GGUF file: the tensors and the header llama.cpp would write."""
    return write_gguf(tiny_folder, tmp_path_factory.mktemp("gguf") / "tiny.gguf")


def write_gguf(folder, path):
    from safetensors.numpy import load_file

    config = json.loads((folder / "config.json").read_text())
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(1e4)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(sorted(vocabulary["vocab"], key=vocabulary["vocab"].get))
    writer.add_token_types([1] * len(vocabulary["vocab"]))
    writer.add_token_merges([" ".join(pair) for pair in vocabulary["merges"]])
    writer.add_eos_token_id(vocabulary["vocab"]["<|im_end|>"])
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    for name, tensor in load_file(folder / "model.safetensors").items():
        for projection, count in heads.items():
            if projection in name:  # GGUF keeps rotated pairs side by side
                parts = tensor.reshape(count, 2, -1, tensor.shape[-1])
                tensor = parts.swapaxes(1, 2).reshape(tensor.shape)
        writer.add_tensor(gguf_name(name), np.ascontiguousarray(tensor, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def gguf_name(name):
    for long, short in (
        ("model.layers.", "blk."),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("lm_head", "output"),
    ):
        name = name.replace(long, short)
    return name


def test_a_folder(tiny_folder):
    model = load_model(tiny_folder, dtype="float32", device="cpu")
    assert model.device == torch.device("cpu")
    assert (model.name, model.max_len, model.dtype) == ("tiny", 4096, torch.float32)
    assert len(model.facts.layers) == 2
    assert model.facts.refusal is None
    assert model.tokenizer.is_fast
    assert not any(parameter.requires_grad for parameter in model.model.parameters())
    assert load_model(tiny_folder, dtype="bfloat16", name="other").name == "other"


def test_a_gguf_file_is_the_same_model_and_is_unpacked_once(
    gguf_file, tiny_folder, tmp_path, monkeypatch
):
    model = load_model(gguf_file, dtype="float32")
    folder = load_model(tiny_folder, dtype="float32")
    kept = folder.model.state_dict()
    for name, tensor in model.model.state_dict().items():
        torch.testing.assert_close(tensor, kept[name], atol=1e-6, rtol=1e-5)
    assert model.tokenizer.encode("No such file") == folder.tokenizer.encode("No such file")
    [unpacked] = (tmp_path / "leyline" / "dense").iterdir()
    written = (unpacked / "model.safetensors").stat().st_mtime_ns
    load_model(gguf_file, dtype="float32")
    assert (unpacked / "model.safetensors").stat().st_mtime_ns == written


def test_the_tokenizer_alone(gguf_file, tiny_folder):
    expected = load_tokenizer(tiny_folder).encode("error in line 12")
    for _ in range(2):
        assert load_tokenizer(gguf_file).encode("error in line 12") == expected


def test_dtypes():
    cpu = torch.device("cpu")
    assert pick_dtype("float16", cpu) == torch.float16
    assert pick_dtype("auto", cpu) in (torch.bfloat16, torch.float32)
    assert pick_dtype("auto", torch.device("cuda")) == torch.bfloat16
    with pytest.raises(UnsupportedModel, match="unknown dtype 'int4'; one of auto, float32"):
        pick_dtype("int4", cpu)


def test_devices():
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type in ("cpu", "cuda")
    with pytest.raises(UnsupportedModel, match="unknown device 'gpu'; auto, cpu"):
        pick_device("gpu")
    for missing in ("cuda:99", "meta"):
        with pytest.raises(UnsupportedModel, match=f"no device '{missing}' here: torch"):
            pick_device(missing)


def test_an_unknown_dtype_is_told_before_anything_is_read(tmp_path):
    with pytest.raises(UnsupportedModel, match="unknown dtype"):
        load_model(tmp_path / "nothing", dtype="fp8")


def test_a_missing_file(tmp_path):
    with pytest.raises(UnsupportedModel, match=r"nowhere\.gguf does not exist"):
        load_model(tmp_path / "nowhere.gguf")


def test_a_file_that_is_no_gguf(tmp_path):
    path = tmp_path / "page.gguf"
    path.write_text("<html>404 not found</html>")
    for load in (load_model, load_tokenizer):
        with pytest.raises(UnsupportedModel, match=r"page\.gguf is not a GGUF file; fetch it"):
            load(path)


@pytest.mark.parametrize("keep", [4, 8, 24, 700, 0.3, 0.9, -1024])
def test_a_truncated_gguf(gguf_file, tmp_path, keep):
    path = tmp_path / "cut.gguf"
    whole = gguf_file.read_bytes()
    path.write_bytes(whole[: keep if isinstance(keep, int) else int(keep * len(whole))])
    with pytest.raises(UnsupportedModel, match=r"(?s)cannot load .*cut\.gguf.*fetch it again$"):
        load_model(path, dtype="float32")
    dense = tmp_path / "leyline" / "dense"
    assert not dense.exists() or not list(dense.iterdir())


def test_a_gguf_with_garbage_in_its_header(gguf_file, tmp_path):
    path = tmp_path / "bad.gguf"
    whole = bytearray(gguf_file.read_bytes())
    whole[16:400] = bytes((7 * i) % 256 for i in range(384))
    path.write_bytes(whole)
    for load in (load_model, load_tokenizer):
        with pytest.raises(UnsupportedModel, match=r"bad\.gguf"):
            load(path)


def test_an_empty_folder(tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    for load in (load_model, load_tokenizer):
        with pytest.raises(UnsupportedModel, match="empty"):
            load(folder)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", "{"),
        ("config.json", '{"model_type": "no_such_model"}'),
        ("config.json", "[1, 2]"),
        ("config.json", '{"model_type": "t5"}'),
        ("config.json", '{"model_type": "gptj"}'),
        ("model.safetensors", "garbage"),
        ("model.safetensors", None),
        ("tokenizer.json", "{"),
        ("tokenizer.json", '{"version": "1.0"}'),
    ],
)
def test_a_folder_with_a_damaged_file(tiny_folder, tmp_path, file, content):
    folder = tmp_path / "damaged"
    shutil.copytree(tiny_folder, folder)
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_text(content)
    with pytest.raises(UnsupportedModel, match=r"cannot (load|read a tokenizer from) .*damaged"):
        load_model(folder, dtype="float32")


def test_an_architecture_without_an_attention_function(tmp_path, tiny_folder):
    from transformers import GPTJConfig, GPTJForCausalLM

    config = GPTJConfig(vocab_size=400, n_embd=32, n_layer=1, n_head=2, rotary_dim=8)
    GPTJForCausalLM(config).save_pretrained(tmp_path / "gptj")
    with pytest.raises(UnsupportedModel, match="its architecture takes no attention function"):
        load_model(tmp_path / "gptj", dtype="float32")


def test_longrope_ends_where_it_would_switch_frequencies(tiny_folder, tmp_path):
    folder = tmp_path / "long"
    shutil.copytree(tiny_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    config["rope_parameters"] = {
        "rope_type": "longrope",
        "rope_theta": 1e4,
        "short_factor": [1.0] * 8,
        "long_factor": [4.0] * 8,
        "original_max_position_embeddings": 512,
    }
    (folder / "config.json").write_text(json.dumps(config))
    assert load_model(folder, dtype="float32").max_len == 512
