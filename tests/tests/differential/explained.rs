//! The differences that the kernel explains, each with its reason. None allows more than a number
//! that follows from what else was observed.

use std::collections::BTreeMap;

use super::{
    compare::Difference,
    evidence::Evidence,
    observed::Observed,
    rules::{
        another_namespace, no_program_ran, request_minisocket, revised_cause,
        rings_of_two_processors, self_transition, tcpstates_skipped, timewait_minisocket,
    },
};

/// A difference that is no mistake.
#[derive(Debug)]
pub(super) struct Rule {
    /// Its name.
    pub(super) name: &'static str,
    /// Who differs from whom, in what.
    pub(super) differs: &'static str,
    /// Why, in the kernel.
    pub(super) reason: &'static str,
    /// Exactly how much of a difference it explains; nothing where it does not.
    explains: fn(&Difference, &Evidence<'_>) -> Option<u64>,
}

/// Every one.
pub(super) const EXPLAINED: &[Rule] = &[
    Rule {
        name: "self_transition",
        differs: "tcpstates prints `FIN_WAIT2 -> FIN_WAIT2`, and the like; the agent neither tells nor shows it",
        reason: "`close()` after `shutdown()` passes through `tcp_close_state()` again, which sets the state that the socket is in, and `inet_sk_state_store()` emits that, too. No state changes, so the agent takes it for the mark of an orphan and no transition",
        explains: self_transition,
    },
    Rule {
        name: "timewait_minisocket",
        differs: "`ss` shows TIME_WAIT of a socket that nobody told to be in it",
        reason: "`tcp_time_wait()` makes a minisocket by `inet_twsk_alloc()`, whose state is written without `inet_sk_set_state()`, and ends the full socket by `tcp_done()`: all that is emitted is the close. The agent's cause of that close tells the minisocket",
        explains: timewait_minisocket,
    },
    Rule {
        name: "request_minisocket",
        differs: "`ss` shows SYN_RECV of a server's socket that nobody told of",
        reason: "`inet_reqsk_alloc()` makes a request minisocket in NEW_SYN_RECV, which `ss` calls SYN-RECV, without `inet_sk_set_state()`; only the full socket that the handshake's last packet makes of it (`inet_csk_clone_lock()`) emits a transition",
        explains: request_minisocket,
    },
    Rule {
        name: "another_namespace",
        differs: "tcpstates prints more transitions at a port than the plan makes there",
        reason: "the record of the tracepoint `sock:inet_sock_set_state` has no network namespace, so tcpstates shows another's sockets with the same port; the agent, which reads `skc_net`, tells as many in that other namespace",
        explains: another_namespace,
    },
    Rule {
        name: "revised_cause",
        differs: "the agent's event of a close tells `reset_received` or `fin_wait2_timewait`, its counter `late_data`",
        reason: "data for an orphan make `tcp_rcv_state_process()` end the socket first, by `tcp_done()` or `tcp_time_wait()`, which emits the close; the RST that identifies them (`tcp_send_reset()`) follows. The counter is revised then, the event has been told",
        explains: revised_cause,
    },
    Rule {
        name: "no_program_ran",
        differs: "the agent and tcpstates lack the same transitions, which tracefs has",
        reason: "the kernel emitted the event, and called no BPF program: neither that on the raw tracepoint (`__bpf_trace_run()`) nor that on the event (`trace_call_bpf()`), and counted no miss. Seen on a hardened 6.18, in packets whose softirq interrupts a thread of a process that kernel protects",
        explains: no_program_ran,
    },
    Rule {
        name: "tcpstates_skipped",
        differs: "tcpstates lacks transitions that the agent and tracefs have; no more than its program's `recursion_misses`",
        reason: "`trace_call_bpf()` runs no program of a perf event while another one runs on the processor (`bpf_prog_active`), and counts a miss for each that it leaves out: a softirq that interrupts one, such as the timer that sends the delayed acknowledgements of a whole group, is skipped from its first transition to its last. A raw tracepoint's program is guarded against nothing but itself (`__bpf_trace_run()`)",
        explains: tcpstates_skipped,
    },
    Rule {
        name: "rings_of_two_processors",
        differs: "tcpstates prints one socket's transitions in another order than they were made in",
        reason: "`bpf_perf_event_output()` with BPF_F_CURRENT_CPU writes to the ring of the processor that it runs on, and the reader empties one ring after the other, in the order in which `epoll_wait()` found something in them; the agent's ring buffer is one for all (`bpf_ringbuf_reserve()`)",
        explains: rings_of_two_processors,
    },
];

/// What is left unexplained, and how much each rule explains.
#[derive(Debug)]
pub(super) struct Verdict {
    /// Differences that no rule explains.
    pub(super) unexplained: Vec<Difference>,
    /// By the rule's name.
    pub(super) explained: BTreeMap<&'static str, u64>,
}

/// Judges.
pub(super) fn judge(differences: Vec<Difference>, observed: &Observed) -> Verdict {
    let evidence = Evidence::of(observed);
    let mut verdict = Verdict {
        unexplained: Vec::new(),
        explained: EXPLAINED.iter().map(|rule| (rule.name, 0)).collect(),
    };
    for difference in differences {
        let mut rules = EXPLAINED.iter();
        let rule =
            rules.find_map(|rule| Some((rule.name, (rule.explains)(&difference, &evidence)?)));
        match rule {
            Some((name, explained)) => *verdict.explained.entry(name).or_default() += explained,
            None => verdict.unexplained.push(difference),
        }
    }
    verdict
}
