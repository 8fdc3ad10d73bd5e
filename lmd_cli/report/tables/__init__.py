"""The paper's tables: what each compares, how it is laid out, and the published figures."""
