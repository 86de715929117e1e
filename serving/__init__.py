"""Models behind an OpenAI-compatible address: settings, client, engine, managed servers, weights."""
