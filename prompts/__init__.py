"""Text as data, and the loaders that fill it: judge prompts, principles, chat templates, sources of prompts."""
