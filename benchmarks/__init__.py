"""Measurements that go into tables: each row is made by the command that stands in it."""
