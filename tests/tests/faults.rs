//! Faults, each done to an agent that runs beside sockets that are known, or to one that starts.
//! After each, [`verdict`] asks for the same.

use std::sync::{Mutex, PoisonError};

use anyhow::Result;

#[path = "faults/scene.rs"]
mod scene;
#[path = "faults/known.rs"]
mod known;
#[path = "faults/leak.rs"]
mod leak;
#[path = "faults/verdict.rs"]
mod verdict;

#[path = "faults/kill.rs"]
mod kill;
#[path = "faults/flood.rs"]
mod flood;
#[path = "faults/namespaces.rs"]
mod namespaces;
#[path = "faults/pids.rs"]
mod pids;
#[path = "faults/names.rs"]
mod names;
#[path = "faults/clock.rs"]
mod clock;
#[path = "faults/masks.rs"]
mod masks;
#[path = "faults/agents.rs"]
mod agents;
#[path = "faults/limits.rs"]
mod limits;
#[path = "faults/btf.rs"]
mod btf;
#[path = "faults/shutdown.rs"]
mod shutdown;

use scene::{PLAINLY, Scene, Start};
use verdict::Says;

/// A fault of a running agent.
struct Fault {
    /// How the agent is started.
    start: Start,
    /// What happens to it or around it.
    happens: fn(&mut Scene) -> Result<()>,
    /// What is expected besides the verdict.
    besides: fn(&mut Scene) -> Result<()>,
    /// What its log must say besides what every agent's here says.
    says: Says,
}

/// One at a time: each is noise to the others.
static ONE: Mutex<()> = Mutex::new(());

/// Does it, and gives the verdict.
fn fault(fault: &Fault) -> Result<()> {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(mut scene) = Scene::new(fault.start)? else {
        return Ok(());
    };
    (fault.happens)(&mut scene)?;
    verdict::is_sound(&scene, fault.says)?;
    (fault.besides)(&mut scene)
}

/// Nothing is expected besides the verdict.
#[expect(clippy::unnecessary_wraps, reason = "the table's type")]
fn nothing(_: &mut Scene) -> Result<()> {
    Ok(())
}

macro_rules! faults {
    ($($name:ident: $start:expr, $happens:expr, $besides:expr, $says:expr;)*) => { $(
        #[test]
        fn $name() -> Result<()> {
            fault(&Fault {
                start: $start,
                happens: $happens,
                besides: $besides,
                says: $says,
            })
        }
    )* };
}

/// Does it to an agent that starts, or to a part of it; the verdict is in it.
fn start_up(fault: fn() -> Result<()>) -> Result<()> {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    fault()
}

macro_rules! start_ups {
    ($($name:ident: $happens:expr;)*) => { $(
        #[test]
        fn $name() -> Result<()> {
            start_up($happens)
        }
    )* };
}

/// An agent that watches the known sockets alone is in a PID namespace of its own.
const NO_HOST: &str = "not in the host's PID namespace";

// The name; how the agent is started; what happens; what is expected besides; what its log says.
faults! {
    killed_at_random_moments_of_load:
        PLAINLY, kill::ten_times, nothing, &[];
    killed_while_it_starts:
        PLAINLY, kill::while_it_starts, nothing, &[];
    a_ring_of_one_page_under_full_churn:
        flood::RING_OF_ONE_PAGE, flood::until_records_are_lost, flood::told_is_received_or_lost,
            &[flood::RECORDS_LOST, NO_HOST];
    a_hundred_thousand_sockets_of_one_process:
        flood::WATCHED_ALONE, flood::a_hundred_thousand_sockets, flood::all_were_counted,
            &[NO_HOST];
    more_sockets_than_the_table_has_room_for:
        flood::SMALL_TABLE, flood::more_than_there_is_room_for, flood::no_room_is_counted,
            &[flood::NO_ROOM];
    fifty_namespaces_a_second:
        PLAINLY, namespaces::come_and_go, namespaces::none_is_held, &[];
    an_id_that_was_another_process_s:
        PLAINLY, pids::one_is_another, nothing, &[];
    hostile_names:
        PLAINLY, names::are_shown, nothing, &[];
    a_time_namespace_of_a_day_later:
        clock::A_DAY_LATER, nothing, clock::ages_are_true, &[];
    proc_hidden_and_shown_again:
        masks::APART, masks::hide_proc, nothing, &[masks::OVER, masks::UNTAKEN];
    a_part_of_proc:
        masks::PART_OF_PROC, nothing, masks::no_limit_is_told, &[masks::NO_SYSCTLS];
    no_cgroups_and_no_tracefs:
        masks::NO_CGROUPS, nothing, nothing, &[masks::NO_HIERARCHY];
    a_mount_whose_path_is_no_text:
        masks::MOUNT_WITHOUT_A_TEXT, nothing, nothing, &[];
    a_second_agent:
        PLAINLY, agents::a_second_comes, nothing, &[];
    every_descriptor_taken:
        limits::FEW_DESCRIPTORS, limits::take_every_descriptor, limits::refusals_are_counted,
            &[limits::NONE_LEFT];
    few_descriptors_at_first:
        limits::FEW_AT_FIRST, nothing, nothing, &[];
    few_addresses:
        limits::FEW_ADDRESSES, limits::load, nothing, &[];
    little_memory:
        limits::LITTLE_MEMORY, limits::load_in_little_memory, limits::memory_suffices, &[];
    a_kernel_that_lacks_a_field_and_a_tracepoint:
        btf::LACKING, nothing, btf::the_others_run, &[btf::NOT_ATTACHED, btf::FIELD];
    pages_read_while_it_ends:
        PLAINLY, shutdown::six_times, nothing, &[];
}

// Those of an agent that starts, or of no agent.
start_ups! {
    too_few_descriptors: limits::too_few_descriptors;
    too_few_threads: limits::too_few_threads;
    btf_missing_or_truncated: btf::missing_and_truncated;
    btf_with_flipped_bits: btf::flipped_bits;
    btf_without_each_field: btf::each_field_renamed;
    the_wall_clock_set_back: clock::wall_clock_set_back;
}
