package main

import (
	"regexp"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// completeWords has a shell offer the words of each flag that takes one of a few, and no files where none is taken. A command that says
// itself what it takes is left alone.
func completeWords(c *cobra.Command) {
	c.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
		if words := wordsOf(f); words != nil {
			_ = c.RegisterFlagCompletionFunc(f.Name, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)) // or it has its own
		}
	})
	if c.ValidArgsFunction == nil && c.ValidArgs == nil && !c.HasSubCommands() && c.Name() != "import" {
		c.ValidArgsFunction = cobra.NoFileCompletions
	}
	for _, sub := range c.Commands() {
		completeWords(sub)
	}
}

// wordList is how the help of a flag lists its words: "open, frozen or closed".
var wordList = regexp.MustCompile(`^[a-z]+(?:, [a-z]+)* or [a-z]+(?:$| \(env )`)

// wordsOf are the words of a flag, nil if it takes others too.
func wordsOf(f *pflag.Flag) []string {
	if c, ok := f.Value.(*choice); ok {
		return c.words
	}
	list := wordList.FindString(f.Usage)
	if list == "" {
		return nil
	}
	list = strings.TrimSuffix(list, " (env ")
	return strings.Split(strings.Replace(list, " or ", ", ", 1), ", ")
}
