//! Dockerfile text to tree: parse, ast, expand, ignore, lint. No files are read here.
