//! The program itself, as a process that can be killed and measured, against the Microsoft 365 simulator.

#![cfg(test)]

mod families;
mod graph;
mod kill;
mod large;
mod process;

#[path = "../relay/route.rs"]
mod route;
