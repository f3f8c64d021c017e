"""Speed against peers and against the machine itself: what `make bench` runs.

    subjects    who is measured: a backend over a transport on so many ranks, a peer with so many threads
    files       the same weights in the files that each of them reads
    sessions    unitp's subjects
    peers       llama.cpp and transformers, in processes of their own (`serve_llama`, `serve_transformers`)
    limits      what the machine can do at all: reading weights, and the bare kernel (`serve_limit`)
    turns       what is measured of each subject, and beside what
    rounds      all turns one after the other, many times
    figures     medians and spreads, of values and of ratios within a round
    wanted      what the product has to show, as such ratios
    table, plot, report    the same figures as text, as a picture, and in the documents

Absolute figures of a shared machine mean little: a ratio is of two values of one round, and its spread is told.
"""
