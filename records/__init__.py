"""The vocabulary every other folder shares: record types, content ids, the store. Imports nothing of ours."""
