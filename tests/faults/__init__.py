"""The fault suite: real processes and servers are killed and frozen while readings flow.

Run by `make test-faults`, not by `make test`. `schedule` says what happens when, `deployment`
is what it happens to, `books` and `verdict` tell whether everything is still there, `watch`
what it cost, and `campaign` puts them together; `network` and `disks` are what hostile
surroundings are made of.

A campaign that fails prints the command that repeats its faults, such as
`FAULT_SEED=3 make test-faults ARGS=tests/faults/test_server_faults.py`. FAULT_ROUNDS=n makes
campaigns n times as long and, from 2 on, outages two minutes long.
"""
