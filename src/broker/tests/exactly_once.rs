//! Every packet of the QoS 1 and QoS 2 exchanges goes missing, one after the other and two at a time.
//!
//! A correct publisher and a correct subscriber, both with sessions that stay, exchange messages through the broker. The
//! packets of a run are counted, in both directions and on both sides; then the run is played again with every fault
//! at every packet, and with every pair of faults. Nothing is left to chance: a plan that fails is printed, and fails
//! again. Judged is what reached the subscriber's application, that no packet id stays held, and that a power cut
//! afterwards brings nothing back.

mod devices;
mod scene;

use scene::{Disk, FAULTS, Plan, Setting, play};

use crate::codec::{QoS, Version};

const VERSIONS: [Version; 2] = [Version::V311, Version::V5];
const Q1: QoS = QoS::AtLeastOnce;
const Q2: QoS = QoS::ExactlyOnce;

fn setting(version: Version, published: &[QoS], granted: QoS, window: usize, disk: Disk) -> Setting {
    Setting { version, published: published.to_vec(), granted, window, disk }
}

/// Every fault at every packet; how many runs that were.
fn every_single_fault(setting: &Setting) -> usize {
    let packets = play(setting, &Plan::new());
    for at in 0..packets {
        for fault in FAULTS {
            play(setting, &vec![(at, fault)]);
        }
    }
    packets * FAULTS.len()
}

/// Every fault at every packet, followed by every fault at every later packet of the run that the first one led to.
fn every_pair_of_faults(setting: &Setting) -> usize {
    let mut runs = 0;
    for first in 0..play(setting, &Plan::new()) {
        for fault in FAULTS {
            let packets = play(setting, &vec![(first, fault)]);
            for second in first + 1..packets {
                for then in FAULTS {
                    play(setting, &vec![(first, fault), (second, then)]);
                    runs += 1;
                }
            }
        }
    }
    runs
}

/// Eight packets a message at QoS 2, four at QoS 1; the messages go one after the other and use one packet id.
#[test]
fn one_fault_at_any_packet() {
    for version in VERSIONS {
        for disk in [Disk::Quick, Disk::Slow] {
            assert_eq!(every_single_fault(&setting(version, &[Q2; 3], Q2, 1, disk)), 24 * 8);
            assert_eq!(every_single_fault(&setting(version, &[Q1; 3], Q1, 1, disk)), 12 * 8);
            // The two halves of different quality: the publisher's is kept by the broker, the subscriber's by both.
            assert_eq!(every_single_fault(&setting(version, &[Q2; 2], Q1, 1, disk)), 12 * 8);
            assert_eq!(every_single_fault(&setting(version, &[Q1; 2], Q2, 1, disk)), 8 * 8);
        }
    }
}

/// Several messages under way at once, of both kinds.
#[test]
fn one_fault_with_several_messages_in_flight() {
    for version in VERSIONS {
        for disk in [Disk::Quick, Disk::Slow] {
            every_single_fault(&setting(version, &[Q2; 6], Q2, 3, disk));
            every_single_fault(&setting(version, &[Q1; 6], Q1, 3, disk));
            every_single_fault(&setting(version, &[Q2, Q1, Q2, Q1, Q1, Q2], Q2, 4, disk));
        }
    }
}

#[test]
fn two_faults_at_any_two_packets_of_qos_2_in_v311() {
    two_faults(Version::V311, Q2);
}

#[test]
fn two_faults_at_any_two_packets_of_qos_2_in_v5() {
    two_faults(Version::V5, Q2);
}

#[test]
fn two_faults_at_any_two_packets_of_qos_1_in_v311() {
    two_faults(Version::V311, Q1);
}

#[test]
fn two_faults_at_any_two_packets_of_qos_1_in_v5() {
    two_faults(Version::V5, Q1);
}

fn two_faults(version: Version, qos: QoS) {
    for disk in [Disk::Quick, Disk::Slow] {
        let runs = every_pair_of_faults(&setting(version, &[qos], qos, 1, disk));
        eprintln!("{version:?} {qos:?} {disk:?}: {runs} runs");
    }
}
