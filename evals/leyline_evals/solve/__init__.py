"""Solve rates: policies and mechanisms measured together, paired, in runs that can be resumed."""
