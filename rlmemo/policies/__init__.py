"""Policies: each answers what comes next, and what to have ready."""
