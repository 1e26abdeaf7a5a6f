"""A small random model of each family: its real architecture, a tokenizer built as the family's."""

import io
import json
import random

import sentencepiece
import torch
from conftest import TEXTS
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
}
GROUPED = SMALL | {"num_key_value_heads": 2, "head_dim": 8}

# The patterns that the families' tokenizer.json hold.
_GPT4 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN = _GPT4.replace(r"\p{N}{1,3}", r"\p{N}")


def corpus():
    """Texts to train tokenizers on; letters are frequent, so that each is one token."""
    return [*TEXTS * 20, *["A B C D A. B. C. D.", "A", "B", "C", "D", "x = 1  # 你好 🙂"] * 20]


def sentencepiece_model(**options):
    """The bytes of a tokenizer.model as LLaMA's: BPE with byte fallback, spaces kept."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus()),
        model_writer=model,
        **{
            "model_type": "bpe",
            "vocab_size": 380,
            "character_coverage": 1.0,
            "byte_fallback": True,
            "split_digits": True,
            "remove_extra_whitespaces": False,
            "normalization_rule_name": "identity",
            "allow_whitespace_only_pieces": True,
            "hard_vocab_limit": False,
            "num_threads": 1,
            "minloglevel": 2,
        }
        | options,
    )
    return model.getvalue()


def with_tied_words(model, words):
    """A sentencepiece model with `words` added at one score above all, as Chinese-LLaMA's are."""
    proto = sentencepiece.sentencepiece_model_pb2.ModelProto.FromString(model)
    known = {piece.piece for piece in proto.pieces}
    characters = sorted({character for word in words for character in word} - known)
    for word in [*characters, *(word for word in words if word not in known)]:
        proto.pieces.add(piece=word, score=1.0)
    return proto.SerializeToString()


def write_sentencepiece(folder, model, tokenizer_class="LlamaTokenizer", **config):
    """A folder's tokenizer files, where tokenizer.model is all there is."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.model").write_bytes(model)
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    config = {"tokenizer_class": tokenizer_class} | names | config
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return len(sentencepiece.sentencepiece_model_pb2.ModelProto.FromString(model).pieces)


def _byte_level(pattern, special, normalizer=None, ignore_merges=False):
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        corpus(), trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet)
    )
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    return tokenizer


def _llama3_tokenizer():
    begin = "<|begin_of_text|>"
    special = [begin, "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    tokenizer = _byte_level(_GPT4, special, ignore_merges=True)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A", special_tokens=[(begin, tokenizer.token_to_id(begin))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=begin, eos_token="<|end_of_text|>"
    )


def _qwen_tokenizer():
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = _byte_level(_QWEN, special, normalizers.NFC())
    tokenizer.add_tokens([AddedToken("<tool_call>", normalized=False, special=False)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        chat_template="{% for m in messages %}<|im_start|>{{ m.content }}{% endfor %}",
    )


def _gemma_tokenizer():
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    tokenizer.train_from_iterator(
        corpus(), trainers.BpeTrainer(vocab_size=500, special_tokens=special + bytes_)
    )
    # the trainer marks the bytes as special, which they are not
    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = [t for t in state["added_tokens"] if t["content"] in special]
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.add_tokens([AddedToken("\n\n", normalized=False, special=False)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **{f"{name}_token": f"<{name}>" for name in ("pad", "eos", "bos", "unk")},
    )


def _save(folder, tokenizer, tokenizer_class, config_class, **config):
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    fields = json.loads(path.read_text()) | {"tokenizer_class": tokenizer_class}
    path.write_text(json.dumps(fields))
    save_random_model(folder, config_class(vocab_size=len(tokenizer), **config))


def save_random_model(folder, config):
    """Random weights of an architecture, to `folder`."""
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).float().save_pretrained(folder)


def make_llama2(folder):
    """A folder with tokenizer.model and no tokenizer.json, as LLaMA 1 and 2 were given out."""
    size = write_sentencepiece(folder, sentencepiece_model())
    save_random_model(folder, LlamaConfig(vocab_size=size, **SMALL))


def make_chinese_llama(folder):
    """As `make_llama2`, with Chinese words that all have one score."""
    words = ["你好", "春风", "江南", "南岸", "明月", "月何", "答案", "案是", "一项", "正确", "确？"]
    size = write_sentencepiece(folder, with_tied_words(sentencepiece_model(), words))
    save_random_model(folder, LlamaConfig(vocab_size=size, **SMALL))


def make_llama3(folder):
    """Byte-level BPE with GPT-4's pattern, BOS put before every text."""
    _save(folder, _llama3_tokenizer(), "PreTrainedTokenizerFast", LlamaConfig, **GROUPED)


def make_qwen2(folder):
    """Qwen 1.5 and 2.5: bias in attention; a chat template of its own."""
    _save(folder, _qwen_tokenizer(), "Qwen2Tokenizer", Qwen2Config, **GROUPED)


def make_qwen3(folder):
    """Qwen 3: normalised queries and keys, heads of 128 whatever the width."""
    _save(folder, _qwen_tokenizer(), "Qwen2Tokenizer", Qwen3Config, **GROUPED | {"head_dim": 128})


def make_gemma3(folder):
    """Gemma 3: BPE over whole texts, sliding windows in all layers but one."""
    window = {"sliding_window": 5, "layer_types": ["sliding_attention", "full_attention"]}
    _save(folder, _gemma_tokenizer(), "GemmaTokenizer", Gemma3TextConfig, **GROUPED | window)


def make_mistral(folder):
    """Mistral: LLaMA's kind of tokenizer, a sliding window in every layer."""
    size = write_sentencepiece(folder, sentencepiece_model(), legacy=False)
    save_random_model(folder, MistralConfig(vocab_size=size, sliding_window=5, **GROUPED))


def baichuan_vocabulary(rows):
    """A sentencepiece model of `rows` pieces, each with a score of its own, as Baichuan's are."""
    proto = sentencepiece.sentencepiece_model_pb2.ModelProto.FromString(sentencepiece_model())
    known = {piece.piece for piece in proto.pieces}
    score = min(piece.score for piece in proto.pieces)
    characters = [chr(0x4E00 + i) for i in range(20_000)]
    pairs = (a + b for a in characters[:400] for b in characters[:400])
    for piece in [*characters, *pairs]:
        if len(proto.pieces) == rows:
            break
        if piece not in known:
            score -= 1
            proto.pieces.add(piece=piece, score=score)
    return proto.SerializeToString()


def make_baichuan(folder, rows=125_696, alibi=False, **config):
    """Baichuan's own format: `W_pack`, names of code that is not to be run, its tokenizer class."""
    from safetensors.torch import save_file

    code = {"AutoTokenizer": ["tokenization_baichuan.BaichuanTokenizer", None]}
    write_sentencepiece(folder, baichuan_vocabulary(rows), "BaichuanTokenizer", auto_map=code)
    # 5 heads as 13B's 40: no power of two, so that both kinds of slopes are there
    shape = {"hidden_size": 40, "num_attention_heads": 5} if alibi else {}
    fields = SMALL | shape | {"vocab_size": rows, "rms_norm_eps": 1e-6, "model_max_length": 256}
    if alibi:
        del fields["max_position_embeddings"]
    fields |= {
        "model_type": "baichuan",
        "architectures": ["BaichuanForCausalLM"],
        "auto_map": {"AutoModelForCausalLM": "modeling_baichuan.BaichuanForCausalLM"},
        "hidden_act": "silu",
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "tie_word_embeddings": False,
    } | config
    (folder / "config.json").write_text(json.dumps(fields))
    for name in ("modeling_baichuan", "tokenization_baichuan"):
        (folder / f"{name}.py").write_text("raise SystemExit('code of a model folder was run')")
    generator = torch.Generator().manual_seed(0)
    width, inner = fields["hidden_size"], fields["intermediate_size"]

    def drawn(*shape):
        return 0.3 * torch.randn(*shape, generator=generator)

    weights = {
        "model.embed_tokens.weight": drawn(rows, width),
        "model.norm.weight": 1 + drawn(width),
        "lm_head.weight": drawn(rows, width),
    }
    for i in range(fields["num_hidden_layers"]):
        weights |= {
            f"model.layers.{i}.self_attn.W_pack.weight": drawn(3 * width, width),
            f"model.layers.{i}.self_attn.o_proj.weight": drawn(width, width),
            f"model.layers.{i}.mlp.gate_proj.weight": drawn(inner, width),
            f"model.layers.{i}.mlp.up_proj.weight": drawn(inner, width),
            f"model.layers.{i}.mlp.down_proj.weight": drawn(width, inner),
            f"model.layers.{i}.input_layernorm.weight": 1 + drawn(width),
            f"model.layers.{i}.post_attention_layernorm.weight": 1 + drawn(width),
        }
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def make_baichuan_13b(folder):
    """Baichuan 2 13B: ALiBi in place of rotary positions."""
    make_baichuan(folder, alibi=True)


def make_chinese_llama_plus(folder):
    """A LoRA adapter of a LLaMA, with a bigger tokenizer and whole embedding and output layers.

    Returns the model as PEFT has it before it is saved.
    """
    from peft import LoraConfig, get_peft_model

    base = folder.parent / "llama1"
    make_llama2(base)
    words = ["你好", "春风", "江南", "南岸", "明月"]
    size = write_sentencepiece(folder, with_tied_words(sentencepiece_model(), words))
    model = AutoModelForCausalLM.from_pretrained(base)
    assert size > model.config.vocab_size
    model.resize_token_embeddings(size)
    config = LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules=["q_proj", "v_proj", "k_proj", "o_proj", "gate_proj", "down_proj"],
        modules_to_save=["embed_tokens", "lm_head"],
        task_type="CAUSAL_LM",
    )
    adapted = get_peft_model(model, config)
    torch.manual_seed(1)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name or "modules_to_save" in name:
            parameter.data.normal_(std=0.3)
    adapted.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    # fields of the peft of that time
    path = folder / "adapter_config.json"
    old = {"enable_lora": None, "merge_weights": False, "base_model_name_or_path": "../llama1"}
    path.write_text(json.dumps(json.loads(path.read_text()) | old))
    return adapted


def make_gguf(folder, make=make_chinese_llama):
    """One file of another family, which transformers unpacks; returns its path."""
    from growth.export.gguf import write_gguf
    from growth.model.loading import load_model, load_tokenizer

    make(folder)
    chat = load_tokenizer(folder)
    model = load_model(folder, torch.float32, chat)
    write_gguf(model, chat, None, folder / "model.gguf", "f32")
    return folder / "model.gguf"


def make_gguf_llama3(folder):
    """The same of byte-level BPE."""
    return make_gguf(folder, make_llama3)


FAMILIES = {
    "llama2": make_llama2,
    "chinese-llama": make_chinese_llama,
    "llama3": make_llama3,
    "qwen2": make_qwen2,
    "qwen3": make_qwen3,
    "gemma3": make_gemma3,
    "mistral": make_mistral,
    "baichuan2-7b": make_baichuan,
    "baichuan2-13b": make_baichuan_13b,
    "chinese-llama-plus": make_chinese_llama_plus,
    "gguf": make_gguf,
    "gguf-llama3": make_gguf_llama3,
}


def random_strings(count, seed):
    """Strings of all kinds: code, runs of spaces, Chinese, control tokens' names, any character."""
    draw = random.Random(seed)
    parts = [
        *TEXTS,
        "def ",
        "    ",
        "  ",
        "\n\n",
        "\t",
        " ",
        "你好",
        "A",
        "B. ",
        "🙂",
        "é",
        "e\u0301",
    ]
    parts += ["<b>", "<|", "|>", "1", "23", "4567", "’s", "'LL", "。", "▁", "\u3000"]

    def character():
        ranges = ((0x20, 0x7E), (0xA0, 0x24F), (0x4E00, 0x9FFF), (0x1F300, 0x1F64F))
        return chr(draw.randint(*draw.choice(ranges)))

    return [
        "".join(
            draw.choice(parts) if draw.random() < 0.7 else character()
            for _ in range(draw.randint(1, 12))
        )
        for _ in range(count)
    ]
