use agent_ebpf::record::{RetransmitRecord, SocketId, TransitionRecord, pack_duration};
use proptest::prelude::*;

use super::*;

/// When the records of these tests were written, and when they are read.
const WRITTEN: Duration = Duration::from_secs(100_000);
const NOW: Duration = Duration::from_millis(100_000_020);

fn bytes_of<T: Copy>(record: T) -> [u8; RECORD_SIZE] {
    // SAFETY: both record types are 64 bytes of integers without padding; transmute_copy reads
    // just as many.
    unsafe { std::mem::transmute_copy(&record) }
}

fn id() -> SocketId {
    let mut address = [0; 16];
    address[..4].copy_from_slice(&[10, 0, 0, 1]);
    let mut remote_address = [0; 16];
    remote_address[..4].copy_from_slice(&[10, 0, 0, 2]);
    SocketId {
        cookie: 0x0102_0304_0506_0708,
        netns: 4_026_531_840,
        local_port: 443,
        remote_port: 50_000,
        local_address: address,
        remote_address,
    }
}

fn transition_record() -> TransitionRecord {
    let (duration, flags) = pack_duration(2_500_000_000);
    TransitionRecord {
        kind: KIND_TRANSITION,
        states: (TcpState::FinWait1 as u8) << 4 | TcpState::Close as u8,
        cause: CloseCause::TimedOut as u8,
        flags: flags | FLAG_ORPHAN,
        at_us: low_us(WRITTEN),
        duration,
        pid: 4711,
        socket: id(),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "as the programs do")]
fn low_us(at: Duration) -> u32 {
    at.as_micros() as u32
}

#[test]
fn a_transition_comes_through_whole() {
    let event = decode(&bytes_of(transition_record()), NOW).unwrap();
    assert_eq!(
        event,
        Event::Transition(Transition {
            at: WRITTEN,
            from: TcpState::FinWait1,
            to: TcpState::Close,
            duration: Some(Duration::from_millis(2500)),
            cause: Some(CloseCause::TimedOut),
            socket: Socket {
                cookie: Some(0x0102_0304_0506_0708),
                netns: Some(4_026_531_840),
                local: "10.0.0.1:443".parse().unwrap(),
                remote: "10.0.0.2:50000".parse().unwrap(),
                pid: Some(4711),
                orphan: true,
                unfinished: false,
                in_cgroup: false,
            },
        })
    );
}

#[test]
fn a_retransmission_comes_through_whole() {
    let record = RetransmitRecord {
        kind: KIND_RETRANSMIT,
        state: TcpState::Established as u8,
        packet_trigger: (Packet::Data as u8) << 4 | Trigger::Tlp as u8,
        flags: 0,
        at_us: low_us(NOW),
        segments: 3,
        pid: 0,
        socket: id(),
    };
    let Event::Retransmit(event) = decode(&bytes_of(record), NOW).unwrap() else {
        panic!("a retransmission became another event");
    };
    assert_eq!(event.at, NOW);
    assert_eq!(event.state, TcpState::Established);
    assert_eq!((event.packet, event.trigger), (Packet::Data, Trigger::Tlp));
    assert_eq!(event.segments, 3);
    assert_eq!(event.socket.pid, None);
}

#[test]
fn an_ipv6_socket_keeps_its_family_for_a_mapped_address() {
    let mut record = transition_record();
    record.flags |= FLAG_IPV6;
    record.socket.local_address = Ipv6Addr::LOCALHOST.octets();
    record.socket.remote_address = Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped().octets();
    let Event::Transition(event) = decode(&bytes_of(record), NOW).unwrap() else {
        panic!("a transition became another event");
    };
    assert_eq!(event.socket.local.to_string(), "[::1]:443");
    assert_eq!(event.socket.remote.to_string(), "[::ffff:192.0.2.1]:50000");
}

#[test]
fn long_durations_are_in_milliseconds_and_unknown_ones_are_none() {
    let mut record = transition_record();
    let decode_duration = |record: TransitionRecord| match decode(&bytes_of(record), NOW).unwrap() {
        Event::Transition(transition) => transition.duration,
        Event::Retransmit(_) => panic!("a transition became another event"),
    };
    let (duration, flags) = pack_duration(7 * 24 * 3600 * 1_000_000_000);
    (record.duration, record.flags) = (duration, flags);
    assert_eq!(decode_duration(record), Some(Duration::from_hours(7 * 24)));
    record.flags = 0;
    assert_eq!(decode_duration(record), None);
}

#[test]
fn the_clock_is_completed_across_a_wrap() {
    // Written just before the low 32 bits of the microseconds wrapped, read just after.
    let written = Duration::from_micros((1 << 32) - 10);
    let read = Duration::from_micros((1 << 32) + 500);
    assert_eq!(moment(low_us(written), read), written);
    // A record "from the future" of a clock that has just started is as old as can be.
    assert_eq!(moment(u32::MAX, Duration::ZERO), Duration::ZERO);
}

#[test]
fn every_wrong_length_is_refused() {
    let record = bytes_of(transition_record());
    for length in 0..RECORD_SIZE {
        assert_eq!(
            decode(&record[..length], NOW),
            Err(DecodeError::Length(length))
        );
    }
    let longer = [record.as_slice(), &[0]].concat();
    assert_eq!(
        decode(&longer, NOW),
        Err(DecodeError::Length(RECORD_SIZE + 1))
    );
}

#[test]
fn every_unknown_number_is_refused_by_name() {
    let mut wrong = transition_record();
    wrong.kind = 99;
    assert_eq!(decode(&bytes_of(wrong), NOW), Err(DecodeError::Kind(99)));
    let mut wrong = transition_record();
    wrong.states = 0;
    let error = decode(&bytes_of(wrong), NOW).unwrap_err();
    assert_eq!(error.to_string(), "state 0 is unknown");
    let mut wrong = transition_record();
    wrong.cause = 17;
    let error = decode(&bytes_of(wrong), NOW).unwrap_err();
    assert_eq!(error.to_string(), "close cause 17 is unknown");
}

proptest! {
    #[test]
    fn any_bytes_are_an_event_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..80), now in any::<u64>()) {
        let _either = decode(&bytes, Duration::from_nanos(now));
    }

    #[test]
    fn any_64_bytes_of_a_known_kind_have_an_answer(mut bytes in prop::array::uniform32(any::<u8>()), kind in 1_u8..=2) {
        bytes[0] = kind;
        let record = [bytes, bytes].concat();
        match decode(&record, NOW) {
            Ok(_) | Err(DecodeError::Value { .. }) => {}
            Err(other) => prop_assert!(false, "{other}"),
        }
    }
}
