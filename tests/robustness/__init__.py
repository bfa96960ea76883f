"""Faults under load: traffic is recorded, a fault is injected, validators read the record.

history.py    what was asked, what was answered, what watches told
traffic.py    clients that create, update, delete and watch over REST
faults.py     what is done to the processes meanwhile
validate.py   the guarantees, each with a name; pure, so that a saved record can be judged again
"""
