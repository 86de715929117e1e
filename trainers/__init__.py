"""Thin over TRL: settings in, model folder out."""
