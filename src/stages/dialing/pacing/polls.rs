//! When the agents were counted and how many of them were idle and busy, as it is kept: numbers in
//! one row, each time as what has passed since the one before. Up to version 2 of the state each
//! poll was a list of its own, with its time since 1970.

use arrayvec::ArrayVec;
use serde::de::{Deserialize, Deserializer, Error};
use serde::ser::Serializer;

use super::{POLLS, Poll};
use crate::pipeline::row::Piece;

pub(super) fn serialize<S: Serializer>(
    polls: &ArrayVec<Poll, POLLS>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut before = 0;
    serializer.collect_seq(polls.iter().flat_map(|(at, idle, busy)| {
        let passed = at - std::mem::replace(&mut before, *at);
        [passed, i64::from(*idle), i64::from(*busy)]
    }))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<ArrayVec<Poll, POLLS>, D::Error> {
    let (mut polls, mut row, mut before) = (ArrayVec::new(), ArrayVec::<i64, 3>::new(), 0);
    for piece in Vec::<Piece<i64, Poll>>::deserialize(deserializer)? {
        let poll = match piece {
            Piece::Entry(poll) => poll,
            Piece::Number(number) => {
                row.push(number);
                let [passed, idle, busy] = row[..] else { continue };
                row.clear();
                let count = |number: i64| u32::try_from(number).map_err(D::Error::custom);
                before += passed;
                (before, count(idle)?, count(busy)?)
            }
        };
        polls.try_push(poll).map_err(D::Error::custom)?;
    }
    Ok(polls)
}
