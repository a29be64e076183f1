"""What people use in place of this project, each as its own documentation runs it, and this project beside them.

A contender is a module here with some of these functions, which a process of its own calls (see `worker`):

    train(work, clock)              the first epoch of a training, its steps timed by `clock`
    batches(work) -> Iterator       training batches, ready for the network, without end
    predict(work) -> Callable       a function that classifies the 10,000 test images
    epoch(work)                     one epoch with validation and test, from the start to the accuracy
"""
