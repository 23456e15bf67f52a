"""Check what is on disk (verify, report, audit, doctor), and mend what is damaged."""
