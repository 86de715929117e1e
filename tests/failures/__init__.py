"""Failures that were published about other projects that make or judge preference data; ours is shown to have none.

A test is named after what went wrong; its docstring says in which project, and where. Failures of servers, trainers and
whole runs are shown beside what they concern, see `ELSEWHERE` in `test_elsewhere.py`.
"""
