-- One row for each measurement, at its latest change: readers learn that a measurement has changed and read it as it is,
-- so what came before is of no use to anybody.

DELETE FROM changes WHERE seq NOT IN (SELECT MAX(seq) FROM changes GROUP BY computation);
DROP INDEX changes_by_computation;
CREATE UNIQUE INDEX changes_by_computation ON changes (computation);
