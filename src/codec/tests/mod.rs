//! Tests of the codec as a whole.

use crate::codec;

mod generate;
mod round_trip;
