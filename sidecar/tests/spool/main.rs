//! The spool as other programs meet it: killed at any moment, on a full volume, with a message larger than the memory.

#![cfg(test)]

mod child;
mod full;
mod kill;
mod memory;
