-- Two migrations that programs from before them may go on beside, and did not say so: a column and a
-- table that those do not look at.
INSERT INTO trunkline.compatibility VALUES (15, 13), (16, 13), (20, 16);
