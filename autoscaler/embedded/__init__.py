"""The outside world in one process and in virtual time: API server, scheduler, kubelets, booting machines.

The engine sees none of this: it gets ``world.cluster`` (``ports.ClusterApi``), ``world.clock`` (``ports.Clock``) and a
provider. Everything below is deterministic: the same calls in the same order give the same objects and the same events.

Public API::

    clock.VirtualClock(start_s=0.0)          .now() .advance_to(t)                      never backwards: ValueError
    store.EmbeddedCluster(clock, seed=0, history=10_000)                               implements ports.ClusterApi
        .version                             newest resourceVersion (rises by one with every write)
        .subscribe(callback)                 callback(WatchEvent) after every write; it must not write itself
    world.EmbeddedWorld(*, machines_from=None, boot_s=180.0, missing_devices=None, move_hold_s=60.0,
                        batch_s=1.0, start_s=0.0, seed=0, history=10_000, strict=False, max_cycles=1000)
        .clock .cluster .jobs .workloads .kubelet .scheduler .boot
        .at(t, fn)                           run fn() at virtual second t; order is (time, order of the calls)
        .next_time() -> float | None         next timed event
        .run_due()                           all events due now, and settle until nothing moves
        .run(controllers, until, stop=None)  drive controllers (.cycle() -> float | None) to ``until`` inclusive
        .cycles                              controller cycles run so far
        .settle()                            let everything act at this instant until nothing moves
    jobs.Jobs (world.jobs)
        .submit(name, namespace, shape, run_s, at, labels=None, start_delay_s=0.0)
        .facts() -> tuple[JobFacts, ...]     in the order of submission; .get(namespace, name) -> JobFacts
        .lost                                how often a job lost its run and began again
    machines.BootAgent (world.boot)
        .look()                              look at the cloud at the next settling, whatever the claims say
        .unclaimed() -> tuple[Machine, ...]  machines seen that belong to no claim, or are the second one of a claim
        .known() -> tuple[Machine, ...]      all machines seen and not gone yet
        .looks                               number of list calls made
    kubelet.Kubelet (world.kubelet)
        .lost -> tuple[LostPod, ...]         pods that went down with their node
    recorder.Recorder(world.cluster, world.clock)            make it before the first event
        .stays() -> tuple[records.Stay, ...]
        .machines() -> tuple[records.MachineRecord, ...]     claims that got a machine, in the order of their creation
    checker.check(cluster, settled=True) -> list[str]        what is impossible about this world; [] when nothing is
    checker.assert_possible(cluster, settled=True)           raises checker.ImpossibleWorld(problems)
    checker.watch_strictly(cluster)                          checks after every single write

Boot: ``boot_s`` is seconds or a function of the machine (None: it never boots); ``missing_devices`` a function of the
machine to the number of devices that its node fails to register. A node's name is ``node-<claim name>``.

Pods: ``placement.request`` is ``Request(id=<pod key>, shape=pod.shape)``; anything else is refused. Job pods carry
``kinds.WORKLOAD_LABEL: <namespace>/<job name>``, workload pods ``<namespace>/<workload name>``. A replacement pod
carries the same label and ``kinds.MOVED_FROM: <key of the source pod>`` as label or annotation. While the source exists
the replacement does not count as a replica. Start delay: annotation ``pods.START_DELAY`` (seconds), else the workload's
``start_delay_s``; a replacement takes at least ``move_hold_s``.

A rejected pinned pod ends in phase FAILED with reason OutOfDevice, OutOfCpu or OutOfMemory and stays for whoever
created it; a pod whose node is gone ends FAILED/NodeLost and is deleted at once.
"""
