"""Published failures that are shown not to happen beside what they concern, with a server, a trainer or a whole run."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

ELSEWHERE = {
    "allenai/reward-bench, issue 164; huggingface/trl, issue 3853: a second BOS token before the chat template's own": (
        "tests/serving/test_scores.py::test_a_conversation_has_one_bos",
        "tests/serving/test_scores.py::test_messages_are_sent_with_activations_off_and_no_special_tokens_added",
    ),
    "huggingface/trl, pull request 6952: the reward is read at the first pad, which is an EOS within the prompt": (
        "tests/serving/test_scores.py::test_the_score_is_read_at_the_last_token_though_the_tokenizer_pads_with_it",
    ),
    "vllm-project/vllm, pull request 18313: an activation over one output squashes the reward or makes it 1": (
        "tests/serving/test_scores.py::test_messages_are_sent_with_activations_off_and_no_special_tokens_added",
        "tests/judges/test_reward_model.py::test_a_reward_has_no_place_on_a_scale",
    ),
    "argilla-io/distilabel, issue 1065: going on from the cache hangs": (
        "tests/flows/test_kills.py::test_a_killed_run_goes_on_where_it_was",
    ),
    "argilla-io/distilabel: one timeout in a batch costs the batch": (
        "tests/flows/test_preferences.py::test_faults_lose_no_row_and_double_none",
    ),
    "argilla-io/distilabel and allenai/open-instruct: a failed judgement is never asked again": (
        "tests/flows/test_judge_kinds.py::test_only_what_failed_is_asked_again_and_the_old_answer_is_kept",
    ),
    "allenai/open-instruct, synthetic_preference_dataset.py:181: one None at the end loses everything that was paid": (
        "tests/records/test_store.py::test_a_killed_process_loses_no_answer_it_had_put",
    ),
    "magpie-align/magpie: the checkpoint is one growing file, rewritten in place": (
        "tests/records/test_store.py::test_every_prefix_of_a_journal_replays",
        "tests/records/test_store.py::test_a_torn_last_line_is_asked_again_and_nothing_else",
    ),
    "NVIDIA-NeMo/DataDesigner: another judge's prompt makes every answer anew": (
        "tests/flows/test_preferences.py::test_a_new_judge_prompt_asks_no_generator",
    ),
    "every peer: another policy means another run": (
        "tests/flows/test_preferences.py::test_a_new_policy_asks_nothing_at_all",
    ),
    "modelscope/evalscope, issue 1575: a judge's failures are nowhere in the report": (
        "tests/flows/test_preferences.py::test_a_judgement_that_cannot_be_read_is_no_number",
    ),
    "RLHFlow/Online-RLHF and UltraFeedback: a parser is mended and everything has to be asked again": (
        "tests/flows/test_judge_kinds.py::test_a_better_parser_reads_stored_replies_and_asks_nothing",
    ),
    "argilla-io/distilabel's shape of a pair, which TRL since 0.29 misreads": (
        "tests/pairs/test_dataset_trains.py::test_trl_trains_on_the_folder_unchanged",
        "tests/trainers/test_rows.py::test_columns_that_would_be_misread_are_refused",
    ),
    "princeton-nlp/SimPO and RLHFlow: rewards, which have no scale, are averaged with ratings or across prompts": (
        "tests/judges/test_jury.py::test_a_jury_that_cannot_mean_what_it_says_is_refused",
        "tests/judges/test_reward_model.py::test_standardised_within_the_prompt_rewards_and_ratings_count_alike",
    ),
    "bespokelabsai/curator, issues 127 and 148: a text the prompt is made of changes, and the old answers come back": (
        "tests/judges/test_rating.py::test_changing_the_wording_or_the_aspect_is_a_new_question",
    ),
    "OpenBMB/UltraFeedback: its prompts hold a part of TruthfulQA": (
        "tests/pairs/test_preflight.py::test_benchmark_prompts_are_found_whole_and_by_thirteen_words",
    ),
    "WeOpenML/PandaLM: booleans and empty texts among the answers": (
        "tests/judges/test_published_figures.py::test_pandalm_loads_without_its_empty_and_boolean_answers",
    ),
    "google-research/instruction_following_eval: languages are told by chance, letters replaced by random ones": (
        "tests/judges/test_ifeval.py::test_published_verdicts_are_given_again_but_for_those_listed",
    ),
}
"""Project, place and failure -> the tests."""


@pytest.mark.parametrize("failure", ELSEWHERE)
def test_what_shows_it_is_there(failure: str):
    for place in ELSEWHERE[failure]:
        file, name = place.split("::")
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        functions = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        assert name in [function.name for function in functions], f"{failure}: no test {place}"
