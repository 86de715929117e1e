"""What must hold for the recipe to be the published one: sixteen facts, each with the tests that show it.

Those that belong to no one room are here, below the list; the others are named with their place.
"""

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from judges.jury import Jury, combine
from judges.ultrafeedback import UltraFeedback
from prompts.chat import chat_template
from prompts.sources import PromptSource, load_prompts
from records.schema import Judgement
from tests.trainers.conftest import tiny as tiny

ROOT = Path(__file__).parent.parent
CHAT, ROWS, POLICIES = "prompts/test_render_chat.py", "trainers/test_rows.py", "pairs/test_policies.py"
LISTWISE, DATASET, DATA = (
    "judges/test_ultrafeedback.py",
    "pairs/test_dataset.py",
    "pairs/test_training_data.py",
)

FACTS = {
    "1 the template's golden strings, and what happens without trim_blocks": {
        CHAT: [
            "test_an_empty_system_turn_and_one_exchange",
            "test_the_generation_prompt_ends_with_a_newline",
            "test_a_completion_alone",
            "test_sft_text_is_the_dpo_prompt_and_the_completion",
            "test_without_trim_blocks_stray_newlines_appear",
        ]
    },
    "2 the generation prompt's tokens begin the training's; one BOS policy; the end token is trained": {
        "test_zephyr_facts.py": ["test_the_tokens_asked_with_are_the_first_of_those_trained_on"],
        ROWS: ["test_the_answer_and_its_end_token_are_trained_and_the_prompt_is_not"],
    },
    "3 Alpaca's two wordings, with nothing after Response:": {
        CHAT: [
            "test_alpaca_without_input_ends_at_the_colon",
            "test_alpaca_with_input_has_its_own_wording",
            "test_an_alpaca_answer_follows_without_a_space_and_ends_with_eos",
        ],
        DATA: ["test_an_alpaca_record_with_an_input_gets_the_wording_with_an_input"],
    },
    "4 a prompt's id is its text's SHA-256": {
        "prompts/test_prompt_sources.py": [
            "test_rows_become_prompts_with_published_ids_and_known_columns_as_meta"
        ]
    },
    "5 overall scores are read as they were written": {
        "failures/test_reading.py": ["test_a_one_becomes_a_ten_and_a_decimal_loses_its_fraction"]
    },
    "6 the mean of aspects leaves out what does not apply": {
        "test_zephyr_facts.py": ["test_the_mean_of_four_aspects_is_that_of_those_that_apply"],
        LISTWISE: ["test_an_aspect_that_does_not_apply_leaves_the_mean_of_the_others"],
    },
    "7 four blocks, by their numbers and never by their places": {
        LISTWISE: [
            "test_a_missing_block_does_not_shift_the_others",
            "test_too_many_doubled_or_unnumbered_blocks_are_not_read",
            "test_a_blank_line_in_a_rationale_splits_nothing",
            "test_each_rating_lands_on_the_text_it_was_given_to_in_any_order",
            "test_one_unreadable_block_leaves_the_whole_call_unread_with_no_number",
        ]
    },
    "8 a one is never chosen as a ten": {"judges/test_critique.py": ["test_a_one_is_never_a_ten"]},
    "9 the best against one of the others at random, whatever their order": {
        POLICIES: [
            "test_best_against_random_draws_the_rejected_uniformly_from_all_others",
            "test_best_against_random_may_draw_a_tie_and_then_drops_the_prompt",
            "test_a_tie_at_the_top_is_drawn_and_not_given_to_the_first_in_the_list",
            "test_neither_the_order_of_candidates_nor_of_prompts_changes_a_pair",
            "test_the_chosen_never_scores_lower_and_never_says_the_same",
        ]
    },
    "10 no TruthfulQA, and no prompt on both sides": {
        "test_zephyr_facts.py": ["test_a_source_of_prompts_can_be_left_out_by_name"],
        "flows/test_cleaning.py": ["test_what_is_left_out_is_never_asked_and_stands_in_the_card"],
        "pairs/test_preflight.py": ["test_benchmark_prompts_are_found_whole_and_by_thirteen_words"],
        DATA: ["test_a_test_row_whose_prompt_is_in_train_is_left_out"],
        "failures/test_pairing.py": ["test_what_is_trained_on_is_evaluated_on"],
    },
    "11 gen ends with the user, sft with the assistant, and pairs differ in their last turn alone": {
        DATASET: ["test_the_folder_loads_in_the_published_schema_with_all_six_splits"],
        DATA: ["test_rows_that_are_no_pair_are_counted_by_why"],
    },
    "12 a trainer gets only the columns it reads rightly": {
        DATASET: ["test_the_trainers_views_hold_nothing_else"],
        "pairs/test_dataset_trains.py": ["test_trl_trains_on_the_folder_unchanged"],
        ROWS: ["test_columns_that_would_be_misread_are_refused"],
        DATA: ["test_every_layout_of_preferences_gives_the_same_pairs"],
    },
    "13 DPO's golden numbers, and ln 2 at the first step": {
        "trainers/test_training.py": [
            "test_losses_and_rewards_on_numbers_worked_by_hand",
            "test_the_first_loss_is_ln_2",
        ]
    },
    "14 settings are the published tables', and steps are counted after packing": {
        "test_published_recipes.py": [
            "test_settings_are_the_published_ones_and_come_back_from_a_file",
            "test_a_plan_has_the_published_sizes_and_steps",
        ],
        "flows/test_published_recipe.py": ["test_the_handbooks_recipe_runs_small_and_again_trains_nothing"],
        "test_translate.py": ["test_the_handbooks_two_files_are_our_recipe_of_it"],
    },
    "15 adapters are merged before the next stage, and a wrong base is refused": {
        "trainers/test_run.py": ["test_the_merged_model_is_the_base_with_the_adapter"],
        "trainers/test_settings.py": [
            "test_an_adapter_is_refused_as_a_base_and_its_base_is_named",
            "test_a_reference_of_another_base_is_noticed_before_training",
        ],
    },
    "16 best of n: above all others, one of one, none of the same": {
        "pairs/test_best_of_n.py": [
            "test_the_winner_is_above_every_other_candidate_and_all_scores_are_kept",
            "test_best_of_identical_is_none_and_of_one_that_one_where_it_may",
        ]
    },
}


@pytest.mark.parametrize("fact", FACTS)
def test_what_shows_it_is_there(fact: str):
    for file, names in FACTS[fact].items():
        tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
        there = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert set(names) <= there, f"{fact}: no {sorted(set(names) - there)} in {file}"


@pytest.mark.parametrize(("name", "begins"), [("zephyr", 0), ("alpaca", 1)])
def test_the_tokens_asked_with_are_the_first_of_those_trained_on(name: str, begins: int, tiny: Path):
    from datasets import Dataset
    from transformers import AutoTokenizer

    from trainers.rows import dialogues_to_tokens, pairs_to_tokens
    from trainers.settings import DPOSettings, SFTSettings

    tokenizer: Any = AutoTokenizer.from_pretrained(tiny, bos_token="<unk>")
    tokenizer.chat_template = chat_template(name)
    prompt = [{"role": "user", "content": "Name a colour."}]
    answers = [[{"role": "assistant", "content": text}] for text in ("Red.", "Dog.")]
    asked = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False)
    ids = tokenizer(asked, add_special_tokens=False)["input_ids"]  # as a chat endpoint of vLLM does
    rows = Dataset.from_list([{"prompt": prompt, "completion": answers[0]}])
    sft = dialogues_to_tokens(rows, tokenizer, SFTSettings(loss="completion")).tokens[0]
    pairs = Dataset.from_list([{"prompt": prompt, "chosen": answers[0], "rejected": answers[1]}])
    dpo = pairs_to_tokens(pairs, tokenizer, DPOSettings()).tokens[0]
    assert sft["input_ids"][: len(ids)] == ids == dpo["prompt_ids"]
    assert sft["input_ids"] == dpo["prompt_ids"] + dpo["chosen_ids"]
    assert sft["input_ids"].count(tokenizer.bos_token_id) == begins, (
        "the template alone says whether there is one"
    )
    assert tokenizer.eos_token_id in [label for label in sft["labels"] if label != -100]


@pytest.mark.parametrize(
    ("ratings", "mean"),
    [((4, 5, 4, 5), 4.5), ((4, None, 4, 5), 13 / 3), ((None, None, None, None), None), ((5, 5, 5, 5), 5.0)],
)
def test_the_mean_of_four_aspects_is_that_of_those_that_apply(
    ratings: tuple[float | None, ...], mean: float | None
):
    """The first row's ratings are those of UltraFeedback's first truthful_qa row by llama-2-13b-chat: 4.5."""
    settings = UltraFeedback(model="j")
    judgements = [
        Judgement(
            id=aspect, prompt_id="p", completion_id="c", judge=settings.name, aspect=aspect, fingerprint="f",
            status="ok" if rating else "not_applicable", score=rating, low=1.0, high=5.0,
        )
        for aspect, rating in zip(settings.aspects, ratings, strict=True)
    ]  # fmt: skip
    found = combine(judgements, Jury(members=(settings,))).value
    assert found == (None if mean is None else pytest.approx((mean - 1) / 4))


def test_a_source_of_prompts_can_be_left_out_by_name(tmp_path: Path):
    names = ["evol_instruct", "truthful_qa", "sharegpt", "truthful_qa"]
    rows = [{"instruction": f"Question {i}?", "source": name} for i, name in enumerate(names)]
    (tmp_path / "some.jsonl").write_text("\n".join(map(json.dumps, rows)))
    keep = ("evol_instruct", "false_qa", "flan", "sharegpt", "ultrachat")
    source = PromptSource(
        file=str(tmp_path / "some.jsonl"),
        prompt="instruction",
        meta={"source": "source"},
        where={"source": keep},
    )
    assert [prompt.meta["source"] for prompt in load_prompts(source).prompts] == ["evol_instruct", "sharegpt"]
