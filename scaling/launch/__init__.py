"""Plans and runs sweeps: ``python -m scaling.launch --sweep ladder.py``.  Imports no jax: accelerators belong to the members.

__main__   the verbs plan, run, status, cancel
prepare    sweep file and token store -> what is to run, or every problem at once
folder     the sweep's folder: its lock, sweep.json, spec.json, state.json, and what its files say about a member
estimate   expected seconds, disk, and what forks save
planning   the plan in words
schedule   pure: which member may start, in which order, and how long it all takes
outcome    pure: what the end of a worker means, and whether it is tried again
devices    this machine's cores, GPUs or TPU chips, found without jax
claims     which of them other sweeps on this host use
backend    the protocol submit / poll / cancel; local is the first
watchdog   pure: which workers hang
runner     the loop that closes it all
follow     a member's metrics, read as they grow
board      the live table, or plain lines
analyses   predictions and pictures as child processes
closing    the words at the end
"""
