//! What must hold of any record.

use super::*;
use crate::{api::event::EventLine, feed::Told};

/// The first eight bytes are the time that the record is read at, in microseconds.
pub(crate) fn record(input: &[u8]) {
    let Some((now, record)) = input.split_first_chunk() else {
        return;
    };
    let now = Duration::from_micros(u64::from_le_bytes(*now));
    let event = match decode(record, now) {
        Ok(event) => event,
        Err(error) => {
            assert!(record.len() != RECORD_SIZE || error != DecodeError::Length(RECORD_SIZE));
            return;
        }
    };
    assert_eq!(record.len(), RECORD_SIZE);
    assert_eq!(decode(&encode(&event), now), Ok(event));
    let at = match event {
        Event::Transition(transition) => transition.at,
        Event::Retransmit(retransmit) => retransmit.at,
    };
    assert!(at <= now && now.saturating_sub(at) <= Duration::from_micros(u32::MAX.into()));
    told(event);
}

/// The event as JSON is read back as it was, but for the last digit of its fractions.
fn told(event: Event) {
    let told = Told {
        event,
        process: None,
    };
    let line = EventLine::of(&told, Duration::ZERO);
    let json = serde_json::to_string(&line).unwrap_or_default();
    let read = serde_json::from_str::<EventLine>(&json).ok();
    let same = read.map(|read| EventLine {
        time: line.time,
        ms: line.ms.filter(|_| read.ms.is_some()),
        ..read
    });
    assert_eq!(same, Some(line), "{json}");
}

/// The record that an event is of, written field by field.
fn encode(event: &Event) -> Vec<u8> {
    let (kind, states, cause, flags, at, number) = match event {
        Event::Transition(transition) => {
            let states = (transition.from as u8) << 4 | transition.to as u8;
            let cause = transition.cause.map_or(NO_CAUSE, |cause| cause as u8);
            let (number, flags) = match transition.duration {
                None => (0, 0),
                Some(time) => match u32::try_from(time.as_micros()) {
                    Ok(us) => (us, FLAG_DURATION_KNOWN),
                    Err(_) => (
                        low(time.as_millis()),
                        FLAG_DURATION_KNOWN | FLAG_DURATION_MS,
                    ),
                },
            };
            (KIND_TRANSITION, states, cause, flags, transition.at, number)
        }
        Event::Retransmit(sent) => {
            let packet_trigger = (sent.packet as u8) << 4 | sent.trigger as u8;
            let state = sent.state as u8;
            (
                KIND_RETRANSMIT,
                state,
                packet_trigger,
                0,
                sent.at,
                sent.segments,
            )
        }
    };
    let socket = event.socket();
    let flags = [
        (socket.local.is_ipv6(), FLAG_IPV6),
        (socket.orphan, FLAG_ORPHAN),
        (socket.unfinished, FLAG_UNFINISHED),
        (socket.in_cgroup, FLAG_IN_CGROUP),
    ]
    .iter()
    .fold(
        flags,
        |flags, (is, flag)| if *is { flags | flag } else { flags },
    );
    let mut record = vec![kind, states, cause, flags];
    record.extend(low(at.as_micros()).to_le_bytes());
    record.extend(number.to_le_bytes());
    record.extend(socket.pid.unwrap_or(0).to_le_bytes());
    record.extend(socket.cookie.unwrap_or(0).to_le_bytes());
    record.extend(socket.netns.unwrap_or(0).to_le_bytes());
    record.extend(socket.local.port().to_le_bytes());
    record.extend(socket.remote.port().to_le_bytes());
    for end in [socket.local, socket.remote] {
        match end.ip() {
            IpAddr::V6(address) => record.extend(address.octets()),
            IpAddr::V4(address) => record.extend([&address.octets()[..], &[0; 12]].concat()),
        }
    }
    record
}

#[expect(clippy::cast_possible_truncation, reason = "as the programs do")]
fn low(number: u128) -> u32 {
    number as u32
}
