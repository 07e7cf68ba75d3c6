"""Rooms, bookings and free time."""
