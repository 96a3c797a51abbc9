"""Self-supervised pre-training of MATPAC and MATPAC++: student, teacher, losses."""
