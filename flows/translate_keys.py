"""The keys of training YAMLs: what they are called here, and why those that mean nothing here are left out."""

SCHEDULERS = {"cosine": "cosine", "linear": "linear", "constant": "constant"}
OPTIMIZERS = {
    "adamw_torch": "adamw",
    "adamw_torch_fused": "adamw",
    "adamw_hf": "adamw",
    "rmsprop": "rmsprop",
    "paged_adamw_32bit": "paged_adamw",
}
SAME = (
    "learning_rate",
    "weight_decay",
    "max_grad_norm",
    "gradient_checkpointing",
    "group_by_length",
    "label_smoothing",
    "beta",
)
"""Settings of a stage that have the same name and unit."""
RENAMED = {
    "warmup_ratio": "warmup",
    "num_train_epochs": "epochs",
    "num_epochs": "epochs",
    "max_length": "max_length",
    "max_seq_length": "max_length",
    "sequence_len": "max_length",
    "max_prompt_length": "max_prompt",
    "rl_beta": "beta",
    "dpo_beta": "beta",
    "dpo_label_smoothing": "label_smoothing",
    "precompute_ref_log_probs": "precompute_reference",
    "logging_steps": "logging_every",
    "save_steps": "save_every",
    "chat_template": "template",
    "chat_template_jinja": "template",
}
"""Settings of a stage that have another name here and the same unit."""

_PRECISION = (
    "products are bfloat16 on a GPU, trained weights float32: at 5e-7 nearly no bfloat16 weight moves"
)
_RUN = "a run's folder and its report have it"
_MACHINE = "decided by the machine and the launcher"
DROPPED = {
    **dict.fromkeys(("torch_dtype", "dtype", "bf16", "fp16", "tf32"), _PRECISION),
    **dict.fromkeys(
        ("output_dir", "run_name", "report_to", "log_level", "logging_strategy", "logging_first_step", "wandb_project",
         "wandb_entity", "wandb_watch", "wandb_name", "wandb_log_model", "save_total_limit", "save_strategy",
         "overwrite_output_dir", "dataset_prepared_path", "saves_per_epoch", "save_safetensors"),
        _RUN,
    ),
    **dict.fromkeys(
        ("push_to_hub", "hub_model_id", "hub_strategy", "hub_model_revision", "hub_private_repo"),
        "nothing is pushed; `zephyr export` copies the model and its card",
    ),
    **dict.fromkeys(
        ("do_train", "do_eval", "eval_strategy", "evaluation_strategy", "eval_steps", "evals_per_epoch",
         "per_device_eval_batch_size", "eval_batch_size", "eval_on_start"),
        "held-out rows are scored before and after training",
    ),
    **dict.fromkeys(
        ("attn_implementation", "flash_attention", "use_flash_attention_2", "gradient_checkpointing_kwargs",
         "deepspeed", "fsdp", "fsdp_config", "ddp_timeout", "dataloader_num_workers", "dataset_num_proc",
         "preprocessing_num_workers",
         "remove_unused_columns", "use_liger_kernel", "local_rank", "pad_to_sequence_len",
         "strict", "model_type", "tokenizer_type", "trust_remote_code", "use_cache", "packing_strategy"),
        _MACHINE,
    ),
    **dict.fromkeys(
        ("load_in_8bit", "use_bnb_nested_quant", "bnb_4bit_use_double_quant"),
        "a base is held in bfloat16 or, under an adapter, in nf4 without a second quantization",
    ),
    **dict.fromkeys(
        ("load_in_4bit", "bnb_4bit_quant_type"), "only the base under an adapter is held in 4 bits, and only if asked"
    ),
    **dict.fromkeys(("dataset_kwargs", "auto_insert_empty_system_msg"), "set empty_system where it is wanted"),
    **dict.fromkeys(("val_set_size", "test_split_size"), "a held-out split is named, not drawn from training rows"),
}  # fmt: skip

_BOTH: dict[str, object] = {
    "max_length": 1024,
    "epochs": 3,
    "scheduler": "linear",
    "warmup": 0.0,
    "gradient_checkpointing": True,
}
TRL_DEFAULTS: dict[str, dict[str, object]] = {
    "sft": _BOTH | {"learning_rate": 2e-5},
    "dpo": _BOTH | {"learning_rate": 1e-6, "beta": 0.1},
}
"""TRL 1.16's and transformers' values of what a file leaves out, where ours are others or could become so."""
