//! Images between places.
