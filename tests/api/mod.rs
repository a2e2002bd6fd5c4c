//! The API by route, on a real server.

mod changes;
mod command_line;
mod doors;
mod people;
mod reading;
mod sdk_keys;
mod secrets;
mod serving;
mod sight;
mod trail;
