"""A run's figures as they look in life, made from seeded chance."""

import math
import random

from reports.data import (
    Answer,
    BeforeAfter,
    EndpointRow,
    EvaluationRow,
    ExamplePair,
    Interval,
    LengthPoint,
    ReportData,
    Step,
    Training,
    UsageRow,
    Verdict,
)

MODELS = {"smollm2-135m": 2.4, "smollm2-135m-warm": 2.2, "smollm2-360m": 3.1, "qwen2.5-0.5b-instruct": 3.6}
LONG = """Tea began in China, and its story is usually told in three steps.

1. **Medicine.** Leaves were boiled and drunk for their bitterness.
2. **Custom.** Under the Tang, Lu Yu wrote *The Classic of Tea* and fixed how it was to be made.
3. **Trade.** Portuguese and Dutch ships brought it to Europe in the 17th century; by 1800 Britain drank \
more of it than anything but water.

```python
def steep(leaves: float, water: float) -> float:
    return leaves / water  # grams per litre
```

So the short answer is: from medicine, to custom, to trade."""


def log(steps: int, dpo: bool) -> list[dict[str, float]]:
    dice = random.Random(steps)
    entries = []
    for step in range(1, steps + 1, 2):
        done = step / steps
        entry = {
            "step": step,
            "epoch": done,
            "grad_norm": 2 + dice.random(),
            "learning_rate": 5e-7 * (1 - done),
        }
        if dpo:
            margin = 0.9 * done + dice.gauss(0, 0.08)
            entry |= {"loss": math.log(1 + math.exp(-margin)), "rewards/margins": margin}
            entry |= {"rewards/accuracies": min(1.0, 0.5 + 0.25 * done + dice.gauss(0, 0.05))}
        else:
            entry |= {"loss": 1.1 + 0.8 * math.exp(-4 * done) + dice.gauss(0, 0.03)}
            entry |= {"mean_token_accuracy": 0.62 + 0.1 * done + dice.gauss(0, 0.005)}
        entries.append(entry)
        if step % 20 == 1:
            entries.append({"step": step, "eval_loss": entry["loss"] + 0.03, "eval_runtime": 3.2})
    return [*entries, {"step": steps, "train_runtime": 80.0, "total_flos": 1e12}]


def endpoint(model: str, stage: str, seconds: int = 300) -> EndpointRow:
    dice = random.Random(model)
    series = tuple(
        (
            float(t),
            dice.uniform(50, 64),
            dice.uniform(0, 9),
            64.0 + t / 30,
            dice.gauss(900, 90),
            dice.gauss(3000, 300),
        )
        for t in range(seconds)
    )
    return EndpointRow(
        stage=stage,
        model=model,
        sent=1031,
        answered=1016,
        failed=2,
        retries={"429": 9, "timeout": 4},
        prompt_tokens=280_000,
        cached_tokens=91_000,
        completion_tokens=900_100,
        tokens_in_per_s=933.1,
        tokens_out_per_s=3000.2,
        busy_seconds=300.0,
        starved=0.031,
        limit=74,
        spend=1.234,
        series=series,
    )


def realistic() -> ReportData:
    dice = random.Random(1)
    points = []
    for model, quality in MODELS.items():
        for _ in range(180):
            length = int(dice.lognormvariate(6, 0.6))
            score = min(5.0, max(1.0, dice.gauss(quality, 0.7) + 0.25 * (math.log(length) - 6)))
            points.append(LengthPoint(model=model, length=length, score=score))
    verdicts = (
        Verdict(
            judge="rating", aspect="helpfulness", status="ok", score=4.31, detail="Complete, well ordered."
        ),
        Verdict(
            judge="rules",
            aspect="constraints",
            status="ok",
            score=5,
            detail="3 of 3: a list; no comma; short",
        ),
    )
    failed = (
        Verdict(
            judge="rating", aspect="helpfulness", status="parse_error", detail="no score token in 'I think'"
        ),
    )
    question = "Explain in at most 120 words how tea came to Europe. Use a numbered list."
    before = Answer(
        model="sft", text="Tea is a drink. Tea is a drink that is drunk. Tea is a drink.", score=1.8
    )
    return ReportData(
        title="Zephyr in small: quickstart",
        recipe="quickstart",
        plan="generate   254 prompts x 4 models    1 016 requests   about 3 min\n"
        "judge      1 016 answers x 2 judges  1 016 requests   about 2 min\n"
        "pairs      best_vs_random, ties dropped\n"
        "train      SFT 60 steps, DPO 100 steps",
        headline={
            "prompts": "254",
            "pairs": "203",
            "longer is chosen": "58 %",
            "win rate after DPO": "64 %",
            "time": "9 min 12 s",
        },
        messages=("smollm2-135m: 31 of 508 judgements have no score (31 parse_error); at most 5% wanted",),
        funnel=(
            Step(stage="prompts", rows_in=260, rows_out=254, dropped={"duplicate": 4, "too_long": 2}),
            Step(stage="completions", rows_in=254, rows_out=252, dropped={"empty_answer": 2}),
            Step(stage="judgements", rows_in=252, rows_out=252),
            Step(stage="pairs", rows_in=252, rows_out=203, dropped={"tie": 28, "unjudged": 12, "margin": 9}),
        ),
        scores={model: tuple(p.score for p in points if p.model == model) for model in MODELS},
        win_rates={
            "qwen2.5-0.5b-instruct": Interval(value=0.74, low=0.66, high=0.81, n=142),
            "smollm2-360m": Interval(value=0.58, low=0.49, high=0.66, n=120),
            "smollm2-135m": Interval(value=0.31, low=0.23, high=0.41, n=96),
            "smollm2-135m-warm": Interval(value=0.22, low=0.13, high=0.34, n=48),
        },
        lengths=tuple(points),
        margins=tuple(abs(dice.gauss(1.1, 0.8)) for _ in range(203)),
        judgements={
            model: {"ok": 477, "parse_error": 31 - 7 * i, "truncated": i} for i, model in enumerate(MODELS)
        },
        training=(Training.from_log("SFT", log(60, dpo=False)), Training.from_log("DPO", log(100, dpo=True))),
        evaluation=(
            EvaluationRow(model="sft", metric="mean score", value=2.61, low=2.44, high=2.78, n=64),
            EvaluationRow(model="dpo", metric="mean score", value=2.98, low=2.81, high=3.15, n=64),
            EvaluationRow(model="dpo", metric="win rate against sft", value=0.64, low=0.52, high=0.75, n=64),
        ),
        before_after=(
            BeforeAfter(prompt=question, before=before, after=Answer(model="dpo", text=LONG, score=3.4)),
        ),
        pairs=(
            ExamplePair(
                prompt=question,
                chosen=Answer(model="qwen2.5-0.5b-instruct", text=LONG, score=4.31, verdicts=verdicts),
                rejected=Answer(
                    model="smollm2-135m",
                    text="Tea came to Europe by ship.",
                    score=2.02,
                    verdicts=verdicts + failed,
                ),
            ),
            ExamplePair(
                prompt="Say 'hello' in three languages.",
                chosen=Answer(model="smollm2-360m", text="Hello, bonjour, hola.", score=4.9),
                rejected=Answer(model="smollm2-135m-warm", text="Hello hello hello.", score=1.2),
            ),
        ),
        usage=(
            UsageRow(
                stage="generate",
                requests=1016,
                prompt_tokens=41_230,
                cached_tokens=0,
                completion_tokens=210_400,
                seconds=171.2,
            ),
            UsageRow(
                stage="judge",
                requests=1016,
                prompt_tokens=402_118,
                cached_tokens=301_000,
                completion_tokens=1016,
                seconds=118,
            ),
            UsageRow(stage="train-dpo", seconds=3723),
        ),
        endpoints=(
            endpoint("qwen2.5-0.5b-instruct", "generate and judge"),
            endpoint("smollm2-360m", "generate and judge", seconds=1),
        ),
        versions={"zephyr-flows": "0.1.0", "trl": "1.16.0", "vllm": "0.32.0", "python": "3.11.7"},
        dataset_digest="9b3f" * 16,
    )
