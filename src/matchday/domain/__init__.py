"""The words of the product as values: readings, findings, venues, topics and the account.

Nothing here does input or output, reads a clock, or knows a client library.
"""
