use agent_ebpf::close::CloseCause;
use proptest::prelude::*;

use super::*;

fn counters(closes: &[(CloseCause, u64)], revisions: &[(Revision, u64)]) -> Counters {
    let mut counters = Counters::ZERO;
    for (cause, count) in closes {
        counters.closes[*cause as usize] = *count;
    }
    for (revision, count) in revisions {
        counters.revisions[*revision as usize] = *count;
    }
    counters
}

fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn a_sample_between_a_close_and_its_revision_shows_neither() {
    let mut causes = Causes::default();
    let told = counters(&[(CloseCause::ResetReceived, 1)], &[]);
    causes.count(at(0), &told);
    assert_eq!(causes.settled[CloseCause::ResetReceived as usize], 0);

    let revised = counters(
        &[(CloseCause::ResetReceived, 1)],
        &[(Revision::ResetReceivedToLateData, 1)],
    );
    for millis in [1, 150, 300, 450] {
        causes.count(at(millis), &revised);
        assert_eq!(causes.settled[CloseCause::ResetReceived as usize], 0);
        assert_eq!(causes.settled[CloseCause::LateData as usize], 1);
    }
}

#[test]
fn an_unrevised_reset_shows_after_the_grace() {
    let mut causes = Causes::default();
    let told = counters(&[(CloseCause::ResetReceived, 5)], &[]);
    for millis in [0, 100, 200] {
        causes.count(at(millis), &told);
    }
    assert_eq!(causes.settled[CloseCause::ResetReceived as usize], 5);
}

#[test]
fn causes_nothing_revises_show_at_once() {
    let mut causes = Causes::default();
    causes.count(at(0), &counters(&[(CloseCause::Passive, 7)], &[]));
    assert_eq!(causes.settled[CloseCause::Passive as usize], 7);
}

#[test]
fn records_are_counted_whether_or_not_they_decode() {
    let mut model = Model::new(Setup::default());
    model.record(Err(DecodeError::Kind(9)));
    model.record(crate::decode::decode(&[], Duration::ZERO));
    let view = model.view(Duration::ZERO);
    assert_eq!((view.events, view.lost.malformed), (2, 2));
}

/// What happens between two samples: resets received, data after close, and how many of the
/// latter the sample catches between the event and its RST.
fn step() -> impl Strategy<Value = (u64, u64, u64, u64)> {
    (0_u64..5, 0_u64..5, 0_u64..3, 100_u64..400)
}

proptest! {
    #[test]
    fn causes_never_fall_never_exceed_the_truth_and_end_exact(steps in prop::collection::vec(step(), 1..40)) {
        let mut causes = Causes::default();
        let (mut now, mut resets, mut late, mut owed) = (0, 0, 0, 0);
        let mut before = causes.settled;
        for (received, answered, caught, wait) in steps {
            now += wait;
            resets += received;
            // The RSTs the last sample missed have been sent long since.
            late += owed + answered;
            owed = caught;
            let told = resets + late + owed;
            causes.count(at(now), &counters(
                &[(CloseCause::ResetReceived, told)],
                &[(Revision::ResetReceivedToLateData, late)],
            ));
            for (now, before) in causes.settled.iter().zip(before) {
                prop_assert!(*now >= before);
            }
            before = causes.settled;
            prop_assert!(causes.settled[CloseCause::ResetReceived as usize] <= resets);
            prop_assert!(causes.settled[CloseCause::LateData as usize] <= late);
        }
        late += owed;
        for _ in 0..3 {
            now += 200;
            causes.count(at(now), &counters(
                &[(CloseCause::ResetReceived, resets + late)],
                &[(Revision::ResetReceivedToLateData, late)],
            ));
        }
        prop_assert_eq!(causes.settled[CloseCause::ResetReceived as usize], resets);
        prop_assert_eq!(causes.settled[CloseCause::LateData as usize], late);
    }
}
