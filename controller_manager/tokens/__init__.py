"""Tokens that live in Secrets: those that machines join with, and the lasting ones of service accounts."""
