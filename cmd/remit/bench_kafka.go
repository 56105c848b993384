package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/remitlog/remit/cmd/remit/bench"
	"github.com/remitlog/remit/cmd/remit/torture"
	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/embedded"
)

// recordHeadMin is what a measured record holds beside its filler: when it was made.
const recordHeadMin = 8

type benchKafka struct {
	benchFlags
	size, fetchMB int
	partitions    []int
}

func newBenchKafka(a *app) *cobra.Command {
	var f benchKafka
	c := &cobra.Command{
		Use:   "kafka",
		Short: "Measure the Kafka API, beside Apache Kafka",
		Long: "Measure the Kafka API of a server of its own, with franz-go: producing with acks=all, one record a call; what a consumer at the tail\n" +
			"sees meanwhile; and reading from the start. If Apache Kafka is there (Java, and its jars in $KAFKA_LIBS) it takes turns: with a flush\n" +
			"of each append, which is what remit does, and by its defaults, which sync nothing. The callers run on the same cores.",
		Args: cobra.NoArgs,
	}
	f.register(c.Flags(), 256)
	_ = c.Flags().MarkHidden("rate") // the load is closed
	c.Flags().IntVar(&f.size, "size", 300, "bytes of a record")
	c.Flags().IntSliceVar(&f.partitions, "partitions", []int{1, log.PartitionsDefault}, "partitions of the topics that are produced to")
	c.Flags().IntVar(&f.fetchMB, "fetch-mb", 256, "megabytes that are read from the start")
	c.RunE = func(c *cobra.Command, _ []string) error { return a.benchKafka(c.Context(), &f) }
	return c
}

func (f *benchKafka) validate() error {
	if f.size < recordHeadMin || f.size > embedded.RawMax/2 || f.fetchMB < 1 || f.rate != 0 {
		return usageErrorf("--size is %d to %d, --fetch-mb at least 1, and there is no --rate", recordHeadMin, embedded.RawMax/2)
	}
	for _, n := range f.partitions {
		if n < 1 || n > log.PartitionsMax {
			return usageErrorf("--partitions are 1 to %d", log.PartitionsMax)
		}
	}
	return nil
}

func (a *app) benchKafka(ctx context.Context, f *benchKafka) (err error) {
	if err := f.validate(); err != nil {
		return err
	}
	end, err := f.begin(a)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	server, err := torture.Start(ctx, torture.Options{Data: filepath.Join(f.scratch, "remit")})
	if err != nil {
		return err
	}
	defer func() {
		if stopped := server.Stop(); err == nil {
			err = stopped
		}
	}()
	apache := filepath.Join(f.scratch, "apache")
	if err := os.Mkdir(apache, 0o755); err != nil {
		return err
	}
	r, err := bench.Kafka(ctx, bench.KafkaOptions{
		Dir: apache, Address: server.Kafka, Callers: f.callers, Bytes: f.size, Partitions: f.partitions, Duration: f.duration, Rounds: f.rounds,
		FetchBytes: f.fetchMB * 1e6, Say: a.say,
	})
	if err != nil {
		return err
	}
	return a.printBenchKafka(r)
}

func (a *app) printBenchKafka(r bench.KafkaReport) error {
	if a.format != "table" {
		return a.printJSON(r)
	}
	beside := "Apache Kafka is not there to compare with"
	if r.Apache != "" {
		beside = "beside Apache Kafka " + r.Apache
	}
	fmt.Fprintf(a.stdout, "records of %d bytes, %d callers, acks=all, %s\n", r.Bytes, r.Callers, beside)
	for _, p := range r.Produce {
		fmt.Fprintf(a.stdout, "\nproduce to %d partitions\n", p.Partitions)
		if err := printFigures(a, p.Sides...); err != nil {
			return err
		}
		if p.Ratio > 0 {
			fmt.Fprintf(a.stdout, "remit does %.1f times what Apache Kafka does with a flush of each append\n", p.Ratio)
		}
	}
	fmt.Fprint(a.stdout, "\nfrom the call that produces to the consumer that waits, 1 partition\n")
	if err := printFigures(a, r.Tail...); err != nil {
		return err
	}
	fmt.Fprint(a.stdout, "\nread from the start, one consumer\n")
	return printList(a, r.Fetch,
		column[bench.KafkaFetch]{"", func(f bench.KafkaFetch) string { return f.Name }},
		column[bench.KafkaFetch]{"MB/s", func(f bench.KafkaFetch) string { return strconv.FormatFloat(f.MegabytesPerSecond, 'f', 0, 64) }},
	)
}
