//! The comparison, on records of which it is known what is wrong with them.

use std::collections::BTreeMap;

use agent_ebpf::{
    close::CloseCause::{self, FinWait2TimeWait, LateData, LingerZero, Listener, ResetReceived},
    state::TcpState::{
        self, Close, CloseWait, Established, FinWait1, FinWait2, Listen, SynRecv, SynSent, TimeWait,
    },
};
use tests::{states::States, trace::Trace};

use super::{
    compare::{Difference, Of, differences},
    explained::{EXPLAINED, judge},
    observed::{Observed, Planned, Still, Unseen, Watcher},
    plan::FIRST_PORT,
    sockets::Glimpse,
    step::{Key, Told},
};

const INODE: u32 = 7;
const CLIENT_PORT: u16 = 40_000;

fn key(local: u16, remote: u16) -> Key {
    Key::of(local, remote).unwrap()
}

fn client() -> Key {
    key(CLIENT_PORT, FIRST_PORT)
}

fn server() -> Key {
    key(FIRST_PORT, CLIENT_PORT)
}

/// What is told of a socket that passes through these states.
fn life(key: Key, states: &[TcpState], cause: CloseCause) -> Vec<Told> {
    let told = states.windows(2).map(|step| Told {
        key,
        netns: Some(INODE),
        step: (step[0], step[1]),
        cause: (step[1] == Close).then_some(cause),
    });
    told.collect()
}

/// One connection whose client closes twice and is reset late, as every watcher must see it.
fn sound() -> Observed {
    let through = [SynSent, Established, FinWait1, FinWait2, FinWait2, Close];
    let clients = [&[Close][..], &through[..]].concat();
    let servers = [Listen, SynRecv, Established, CloseWait, Close];
    let lives = [
        life(key(FIRST_PORT, 0), &[Close, Listen, Close], Listener),
        life(client(), &clients, FinWait2TimeWait),
        life(server(), &servers, ResetReceived),
    ];
    let all = lives.concat();
    let trace = Trace::socket(&clients, LateData)
        .and(Trace::socket(&servers, ResetReceived))
        .and(Trace::listener());
    let mut counted = trace;
    counted.transitions[FinWait2 as usize][FinWait2 as usize] = 0;
    let without_namespace = |told: &Told| Told {
        netns: None,
        cause: None,
        ..*told
    };
    let traced: Vec<_> = all.iter().map(without_namespace).collect();
    let told = all.into_iter().filter(|told| told.step.0 != told.step.1);
    let states = States::from([("established", 2)]);
    let glimpse = |key, state| Glimpse {
        namespace: 0,
        key,
        state,
    };
    Observed {
        planned: vec![Planned {
            namespace: 0,
            port: FIRST_PORT,
            trace,
        }],
        namespaces: vec![INODE],
        counted: vec![counted],
        told: told.collect(),
        others: 0,
        recorded: traced.clone(),
        traced,
        glimpses: [glimpse(client(), FinWait2), glimpse(client(), TimeWait)].into(),
        stills: vec![Still {
            phase: 0,
            namespace: 0,
            port: None,
            left: (Watcher::Census, states.clone()),
            right: (Watcher::Ss, states),
        }],
        unseen: Unseen::default(),
    }
}

fn unexplained(observed: &Observed) -> Vec<Difference> {
    judge(differences(observed), observed).unexplained
}

fn explained(observed: &Observed) -> BTreeMap<&'static str, u64> {
    let mut explained = judge(differences(observed), observed).explained;
    explained.retain(|_, count| *count > 0);
    explained
}

/// `sound()`, and something done to it, leaves this many differences without an explanation.
fn tampered(tamper: impl Fn(&mut Observed)) -> usize {
    let mut observed = sound();
    tamper(&mut observed);
    unexplained(&observed).len()
}

#[test]
fn what_is_sound_differs_in_nothing_but_what_is_explained() {
    assert_eq!(unexplained(&sound()), []);
    // Of the plan's own: once in a counter, in an event, in what tcpstates printed.
    let expected = [
        ("revised_cause", 1),
        ("self_transition", 3),
        ("timewait_minisocket", 1),
    ];
    assert_eq!(explained(&sound()), expected.into());
}

#[test]
fn a_transition_that_one_watcher_drops_is_found() {
    for dropped in 0..sound().told.len() {
        assert!(tampered(|observed| _ = observed.told.remove(dropped)) > 0);
    }
    for dropped in 0..sound().traced.len() {
        assert!(tampered(|observed| _ = observed.traced.remove(dropped)) > 0);
        assert!(tampered(|observed| _ = observed.recorded.remove(dropped)) > 0);
    }
}

#[test]
fn a_transition_that_one_watcher_adds_is_found() {
    for added in 0..sound().told.len() {
        assert!(tampered(|observed| observed.told.push(observed.told[added])) > 0);
    }
    for added in 0..sound().traced.len() {
        assert!(tampered(|observed| observed.traced.push(observed.traced[added])) > 0);
    }
}

#[test]
fn a_count_that_is_off_by_one_is_found() {
    for state in TcpState::ALL {
        // The page has no transitions to the same state.
        for other in TcpState::ALL.into_iter().filter(|other| *other != state) {
            let count = |observed: &mut Observed| {
                observed.counted[0].transitions[state as usize][other as usize] += 1;
            };
            assert_eq!(tampered(count), 1, "{state:?} {other:?}");
        }
    }
    for cause in CloseCause::ALL {
        assert_eq!(
            tampered(|observed| observed.counted[0].closes[cause as usize] += 1),
            1
        );
    }
    let census =
        |observed: &mut Observed| *observed.stills[0].left.1.entry("established").or_default() += 1;
    assert_eq!(tampered(census), 1);
    let ss =
        |observed: &mut Observed| *observed.stills[0].right.1.entry("listen").or_default() += 1;
    assert_eq!(tampered(ss), 1);
}

#[test]
fn another_cause_in_an_event_is_found() {
    for told in 0..sound().told.len() {
        for cause in [LingerZero, LateData] {
            let is_close = sound().told[told].cause.is_some_and(|its| its != cause);
            let found = tampered(|observed| observed.told[told].cause = Some(cause));
            // The client's close in another event is what its counter says.
            let is_right = cause == LateData && sound().told[told].cause == Some(FinWait2TimeWait);
            assert!(found > 0 || !is_close || is_right, "{told} {cause:?}");
        }
    }
}

#[test]
fn a_state_that_nobody_told_is_found_unless_it_is_a_minisocket_s() {
    let seen = |key, state| {
        tampered(move |observed| {
            observed.glimpses.insert(Glimpse {
                namespace: 0,
                key,
                state,
            });
        })
    };
    assert_eq!(seen(client(), CloseWait), 1);
    // Its close was no handover.
    assert_eq!(seen(server(), TimeWait), 1);
    // A request has a client, and no child.
    assert_eq!(seen(key(FIRST_PORT, 40_001), SynRecv), 1);
    let request = |observed: &mut Observed| {
        observed.told.retain(|told| told.key != server());
        observed.glimpses = [Glimpse {
            namespace: 0,
            key: server(),
            state: SynRecv,
        }]
        .into();
    };
    let mut observed = sound();
    request(&mut observed);
    let glimpsed = |difference: &Difference| matches!(difference.of, Of::Glimpse(_));
    assert!(!unexplained(&observed).iter().any(glimpsed));
    assert_eq!(explained(&observed).get("request_minisocket"), Some(&1));
}

#[test]
fn another_namespace_explains_as_many_as_were_told_of_it() {
    let told = Told {
        key: client(),
        netns: Some(INODE + 1),
        step: (SynSent, Established),
        cause: None,
    };
    let bare = Told {
        netns: None,
        ..told
    };
    let mut observed = sound();
    observed.told.push(told);
    observed.traced.push(bare);
    observed.recorded.push(bare);
    assert_eq!(unexplained(&observed), []);
    assert_eq!(explained(&observed)["another_namespace"], 2);
    observed.traced.push(bare);
    assert!(!unexplained(&observed).is_empty());
}

/// Drops the same from tcpstates' lines, and from the agent's records where asked for.
fn drop_last_of_server(observed: &mut Observed, from_agent: bool) {
    let is_dropped = |told: &Told| told.key == server() && told.step == (SynRecv, Established);
    observed.traced.retain(|told| !is_dropped(told));
    if from_agent {
        observed.told.retain(|told| !is_dropped(told));
        observed.counted[0].transitions[SynRecv as usize][Established as usize] -= 1;
    }
}

#[test]
fn what_tcpstates_lacks_is_explained_by_no_fewer_misses() {
    let mut observed = sound();
    drop_last_of_server(&mut observed, false);
    assert!(!unexplained(&observed).is_empty());
    observed.unseen.skipped_of_tcpstates = 1;
    assert_eq!(unexplained(&observed), []);
    // Once beside the plan, once beside the agent.
    assert_eq!(explained(&observed)["tcpstates_skipped"], 2);
    observed.traced.pop();
    assert!(!unexplained(&observed).is_empty());
}

#[test]
fn what_all_programs_lack_is_explained_by_tracefs_alone() {
    let mut observed = sound();
    drop_last_of_server(&mut observed, true);
    assert_eq!(unexplained(&observed), []);
    assert_eq!(explained(&observed)["no_program_ran"], 3);
    observed.recorded.pop();
    assert!(!unexplained(&observed).is_empty());
}

#[test]
fn sockets_of_other_namespaces_alone_are_left_out() {
    let foreign = Told {
        key: key(FIRST_PORT, 443),
        netns: Some(INODE + 1),
        step: (SynSent, Established),
        cause: None,
    };
    let mut observed = sound();
    observed.told.push(foreign);
    // One that was there before the agent listened, too.
    observed.traced.extend(
        [Told {
            netns: None,
            ..foreign
        }; 2],
    );
    assert!(!unexplained(&observed).is_empty());
    observed.drop_others();
    assert_eq!(observed.others, 2);
    assert_eq!(observed.told, sound().told);
    assert_eq!(unexplained(&observed), []);
}

#[test]
fn another_order_is_explained_where_it_is_tcpstates_own() {
    let swap = |all: &mut Vec<Told>| {
        let mut of_server = all
            .iter()
            .enumerate()
            .filter(|(_, told)| told.key == server());
        let (first, second) = (of_server.next().unwrap().0, of_server.next().unwrap().0);
        all.swap(first, second);
    };
    let mut observed = sound();
    swap(&mut observed.traced);
    assert_eq!(unexplained(&observed), []);
    assert_eq!(explained(&observed)["rings_of_two_processors"], 1);
    let mut observed = sound();
    swap(&mut observed.told);
    assert_eq!(unexplained(&observed).len(), 1);
}

#[test]
fn the_document_has_the_table() {
    let document = include_str!("../../../docs/differential.md");
    let rows = EXPLAINED
        .iter()
        .map(|rule| format!("| `{}` | {} | {} |\n", rule.name, rule.differs, rule.reason));
    let table: String = rows.collect();
    assert!(
        document.contains(&table),
        "docs/differential.md lacks:\n{table}"
    );
    let listed = document
        .lines()
        .filter(|line| line.starts_with("| `"))
        .count();
    assert_eq!(listed, EXPLAINED.len(), "it has rows that the code has not");
}
